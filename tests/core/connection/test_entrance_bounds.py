"""Clients on their way in: how many at once, for how long, and what they leave behind."""

from __future__ import annotations

import logging
import socket
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest
from tests.core.conftest import HEADER, reasons, until
from tests.core.connection.strangers import ByHand, hello, reset, rest, secure, serving
from tests.core.tls_clients import dial, run
from tests.patience import PATIENCE_S

from esockd_core import ProxyOptions, TcpOptions, TlsOptions

if TYPE_CHECKING:
    from pathlib import Path

    from esockd_core import ConnectionEvent, Handler


pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("what", ["header", "handshake", "both"])
async def test_max_handshaking_holds_for_clients_that_come_at_once(
    handler: Handler, certificates: Path, what: str
) -> None:
    """However many one look at the accept queue brings."""
    options: dict[str, Any] = {"max_handshaking": 3}
    if what != "header":
        options["tls"] = TlsOptions(certfile=certificates / "localhost.pem")
    if what != "handshake":
        options["proxy_protocol"] = True
    async with serving(handler, **options) as listener:
        await listener.suspend()
        clients = [dial(listener) for _ in range(20)]
        await listener.resume()
        await until(lambda: listener.stats().accepted + listener.stats().closed_overloaded == 20)
        assert (listener.stats().accepted, listener.stats().entering) == (3, 3)
        for client in clients:
            client.close()
        await reasons(listener, 3)
        assert listener.stats().entering == 0


@pytest.mark.parametrize("how", ["abort", "reset", "timeout", "refused"])
@pytest.mark.parametrize("phase", ["header", "handshake"])
async def test_a_place_among_those_entering_is_given_back_however_one_ends(
    handler: Handler, tls: TlsOptions, how: str, phase: str
) -> None:
    timeout = 0.1 if how == "timeout" else 10
    async with serving(
        handler,
        tls=tls,
        proxy_protocol=ProxyOptions(header_timeout=timeout),
        max_handshaking=1,
        handshake_timeout=timeout,
    ) as listener:
        for _ in range(3):
            before = listener.stats().accepted
            with await run(lambda: dial(listener, HEADER[:20] if phase == "header" else HEADER + b"\x16")) as client:
                await until(lambda: listener.stats().accepted > before)  # noqa: B023
                if how == "reset":
                    reset(client)
                elif how == "refused":
                    client.sendall(bytes(200))
                elif how != "timeout":
                    [entering] = listener._site.registry.entering.values()
                    getattr(entering, how)("enough")
                await until(lambda: not listener.stats().current_connections)
                assert listener.stats().entering == 0
        assert listener.stats().closed_overloaded == 0
        assert listener.stats().current_connections == 0


async def test_nobody_hears_of_a_connection_before_its_entrance_is_passed(
    handler: Handler, tls: TlsOptions, caplog: pytest.LogCaptureFixture
) -> None:
    """What a program sent to it would go in the clear, perhaps to somebody whom the rules keep out."""
    events: list[ConnectionEvent] = []
    async with serving(
        handler, tls=tls, proxy_protocol=True, access_rules=["deny 192.0.2.7"], on_event=events.append
    ) as listener:
        clients = [dial(listener, start) for start in (b"", HEADER[:20], HEADER)]
        await until(lambda: listener.stats().current_connections == 2)
        assert not listener.connections
        assert not (await listener.list_connections()).connections
        for client in clients:
            client.close()
        await reasons(listener, 3)
        assert listener.stats().entering == 0
    assert not events
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_whoever_stalls_at_the_end_of_the_handshake_is_closed_too(handler: Handler, tls: TlsOptions) -> None:
    """After the server has done its arithmetic: at the bytes of the client's last message."""

    def stall(length: int) -> socket.socket:
        client, by_hand = dial(listener), ByHand()
        client.sendall(by_hand.step())
        last = by_hand.answer(client)
        client.sendall(last[: len(last) * length // 10])
        return client

    async with serving(handler, tls=tls, handshake_timeout=1.5) as listener:
        stalled = [await run(partial(stall, length)) for length in range(10)]
        with await run(lambda: secure(dial(listener))) as good:
            good.sendall(b"hello")
            assert await run(lambda: good.recv(5)) == b"hello"
            for client in stalled:
                with client:
                    await run(partial(rest, client))
            counts = await reasons(listener, 10)
        assert counts == {"handshake_timeout": 10}


@pytest.mark.parametrize("reads", [True, False])
async def test_a_peer_that_does_not_read_the_handshake_is_waited_for_until_the_deadline(
    handler: Handler, certificates: Path, reads: bool
) -> None:
    """The certificates are more than its kernel and ours hold."""
    tls = TlsOptions(certfile=certificates / "long-chain.pem")
    tcp = TcpOptions(send_buffer_bytes=4_608)

    def knock() -> bytes:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_608)
            client.settimeout(PATIENCE_S)
            client.connect(("127.0.0.1", listener.port or 0))
            if reads:
                with secure(client) as secured:
                    secured.sendall(b"hello")
                    return secured.recv(5)
            client.sendall(hello())
            reasons_seen.wait(PATIENCE_S)
            return b""

    reasons_seen = threading.Event()
    async with serving(handler, tls=tls, tcp=tcp, handshake_timeout=PATIENCE_S if reads else 0.3) as listener:
        async with anyio.create_task_group() as task_group:
            answers: list[bytes] = []

            async def note() -> None:
                answers.append(await run(knock))

            task_group.start_soon(note)
            if not reads:
                assert await reasons(listener) == {"handshake_timeout": 1}
                reasons_seen.set()
        assert answers == [b"hello" if reads else b""]
