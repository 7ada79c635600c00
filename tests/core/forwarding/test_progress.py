"""What the timeouts of a forwarded connection look at: bytes that its ends acknowledged, wherever they waited."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import pytest
from tests.core.conftest import MIB, MORE_THAN_KERNELS_HOLD, reasons
from tests.core.connection.takers import RECEIVE_BUFFER_BYTES, dial_slow, take_rest, take_slowly
from tests.core.forwarding.peers import forwarding
from tests.core.tls_clients import AUTHORITY, dial, run
from tests.patience import PATIENCE_S

from esockd_core import UpstreamTlsOptions
from esockd_core.handlers import ForwardHandler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from esockd_core import TlsOptions

pytestmark = pytest.mark.anyio

REPLY: Final = bytes(MIB)
SEND_BUFFER: Final = {"send_buffer_bytes": 400_000}
TIMEOUTS: Final = {"send_timeout": 0.8, "linger_timeout": 0.8, "idle_timeout": 0.8}
ENCRYPTED = pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])


@contextmanager
def upstream(serve: Callable[[socket.socket], object], *, encrypted: bool = False) -> Iterator[tuple[str, int]]:
    """A server for one connection in a thread of its own; gives its address."""

    def serve_one() -> None:
        accepted, _ = listening.accept()
        with accepted:
            accepted.settimeout(PATIENCE_S)
            if not encrypted:
                serve(accepted)
                return
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            AUTHORITY.issue_cert("localhost").configure_cert(context)
            with context.wrap_socket(accepted, server_side=True, suppress_ragged_eofs=False) as secure:
                serve(secure)
                with suppress(OSError):
                    secure.unwrap()

    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        listening.settimeout(PATIENCE_S)
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        thread = threading.Thread(target=serve_one)
        thread.start()
        yield listening.getsockname()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def forward_to(address: tuple[str, int], certificates: Path, *, encrypted: bool = False) -> ForwardHandler:
    if not encrypted:
        return ForwardHandler(address, half_closed_timeout=0.8)
    tls = UpstreamTlsOptions(ca_file=certificates / "ca.pem")
    return ForwardHandler(f"tls://localhost:{address[1]}", tls=tls, half_closed_timeout=0.8)


def send_and_finish(connection: socket.socket, data: bytes = REPLY) -> None:
    """Send everything, and read until the other side finishes."""
    connection.sendall(data)
    if isinstance(connection, ssl.SSLSocket):
        return  # unwrapped by who has it
    connection.shutdown(socket.SHUT_WR)
    with suppress(ConnectionResetError):
        while connection.recv(65_536):
            pass


@ENCRYPTED
async def test_a_client_that_takes_a_little_all_the_time_gets_everything(
    tls: TlsOptions, certificates: Path, *, encrypted: bool
) -> None:
    """From an upstream that has sent everything and finished, in far less time."""
    options: dict[str, Any] = {"tls": tls} if encrypted else {}
    address = "tls://127.0.0.1:0" if encrypted else "127.0.0.1:0"
    with upstream(send_and_finish) as place:
        async with forwarding(
            forward_to(place, certificates), address, tcp=SEND_BUFFER, **TIMEOUTS, **options
        ) as listener:
            with await run(lambda: dial_slow(listener, tls=encrypted)) as client:
                assert await run(lambda: take_slowly(client)) == (len(REPLY), "whole")
            assert await reasons(listener) == {"normal": 1}


@ENCRYPTED
async def test_an_upstream_that_takes_a_little_all_the_time_gets_everything(
    certificates: Path, *, encrypted: bool
) -> None:
    """From a client that has sent everything and finished, in far less time."""
    taken: list[tuple[int, str]] = []
    with upstream(lambda accepted: taken.append(take_slowly(accepted)), encrypted=encrypted) as place:
        async with forwarding(forward_to(place, certificates, encrypted=encrypted), **TIMEOUTS) as listener:
            with dial(listener) as client:
                await run(lambda: send_and_finish(client))
            assert await reasons(listener) == {"normal": 1}
    assert taken == [(len(REPLY), "whole")]


@ENCRYPTED
@pytest.mark.parametrize("size", [300_000, MORE_THAN_KERNELS_HOLD], ids=["in the kernel", "in the process"])
async def test_a_client_that_takes_nothing_is_reset(
    tls: TlsOptions, certificates: Path, size: int, *, encrypted: bool
) -> None:
    options: dict[str, Any] = {"tls": tls} if encrypted else {}
    address = "tls://127.0.0.1:0" if encrypted else "127.0.0.1:0"

    def serve(accepted: socket.socket) -> None:
        with suppress(OSError):
            accepted.sendall(bytes(size))
            accepted.recv(1)

    with upstream(serve) as place:
        async with forwarding(
            forward_to(place, certificates), address, tcp=SEND_BUFFER, send_timeout=0.8, **options
        ) as listener:
            client = await run(lambda: dial_slow(listener, tls=encrypted))
            assert await reasons(listener) == {"send_timeout": 1}
            assert await run(lambda: take_rest(client)) == "reset"


@ENCRYPTED
async def test_a_client_that_takes_nothing_of_a_finished_upstream_is_reset(
    tls: TlsOptions, certificates: Path, *, encrypted: bool
) -> None:
    """Also without a `send_timeout`."""
    options: dict[str, Any] = {"tls": tls} if encrypted else {}
    address = "tls://127.0.0.1:0" if encrypted else "127.0.0.1:0"
    with upstream(lambda accepted: send_and_finish(accepted, bytes(300_000))) as place:
        async with forwarding(
            forward_to(place, certificates), address, tcp=SEND_BUFFER, send_timeout=None, **options
        ) as listener:
            client = await run(lambda: dial_slow(listener, tls=encrypted))
            assert await reasons(listener) == {"half_closed_timeout": 1}
            assert await run(lambda: take_rest(client)) == "reset"


@ENCRYPTED
async def test_an_upstream_that_takes_nothing_of_a_finished_client_is_reset(
    certificates: Path, *, encrypted: bool
) -> None:
    """Also without a `send_timeout`."""
    over = threading.Event()
    ends: list[str] = []

    def be_deaf(accepted: socket.socket) -> None:
        assert over.wait(PATIENCE_S)
        ends.append(take_rest(accepted))

    with upstream(be_deaf, encrypted=encrypted) as place:
        async with forwarding(
            forward_to(place, certificates, encrypted=encrypted), send_timeout=None, linger_timeout=0.2
        ) as listener:
            with dial(listener) as client:
                await run(lambda: send_and_finish(client, bytes(300_000)))
            assert await reasons(listener) == {"half_closed_timeout": 1}
            over.set()
    assert ends == ["reset"]
