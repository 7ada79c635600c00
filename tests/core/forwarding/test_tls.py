"""TLS to upstreams: who they are is verified, and every byte and end goes through it."""

from __future__ import annotations

import random
import socket
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trustme
from anyio.streams.tls import TLSStream
from tests.core.conftest import connect, until
from tests.core.forwarding.peers import connected, forwarding, open_files, read_all

from esockd_core import StreamConnection, TlsCertificate, TlsOptions, UpstreamTlsOptions, open_listener
from esockd_core.handlers import ForwardHandler

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from esockd_core import Listener

pytestmark = pytest.mark.anyio

AUTHORITY = trustme.CA()
LARGE = random.Random(2).randbytes(2**20) * 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("localhost", "other.test", "client"):
        certificate = AUTHORITY.issue_cert(name, common_name=name)
        certificate.private_key_and_cert_chain_pem.write_to_path(str(folder / f"{name}.pem"))
    AUTHORITY.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(folder / "address.pem"))
    AUTHORITY.cert_pem.write_to_path(str(folder / "ca.pem"))
    trustme.CA().cert_pem.write_to_path(str(folder / "stranger.pem"))
    return folder


async def echo(connection: StreamConnection) -> None:
    async for data in connection:
        await connection.send(data)


@asynccontextmanager
async def tls_upstream(
    folder: Path, handler: Any = echo, name: str = "localhost", **options: Any
) -> AsyncIterator[int]:
    tls = TlsOptions(certfile=folder / f"{name}.pem", **options)
    async with open_listener("upstream", "tls://127.0.0.1:0", handler, tls=tls) as listener:
        assert listener.port is not None
        yield listener.port


def forward_to(port: int, folder: Path, host: str = "localhost", **options: Any) -> ForwardHandler:
    return ForwardHandler(f"tls://{host}:{port}", tls=UpstreamTlsOptions(**{"ca_file": folder / "ca.pem", **options}))


async def talk(listener: Listener, data: bytes = LARGE) -> bytes:
    received: list[bytes] = []
    async with connected(listener) as client, anyio.create_task_group() as tasks:

        async def send() -> None:
            await client.send(data)
            await client.send_eof()

        tasks.start_soon(send)
        received.append(await read_all(client))
    return received[0]


async def test_bytes_and_ends_go_through_tls(folder: Path) -> None:
    async with tls_upstream(folder) as port, forwarding(forward_to(port, folder)) as listener:
        assert await talk(listener) == LARGE
        await until(lambda: not listener.connections)
        assert listener.stats().shutdown_counts == {"normal": 1}


async def test_an_upstream_may_go_by_its_address(folder: Path) -> None:
    async with (
        tls_upstream(folder, name="address") as port,
        forwarding(forward_to(port, folder, "127.0.0.1")) as listener,
    ):
        assert await talk(listener, b"hello") == b"hello"


async def test_tls_ends_here_and_begins_anew(folder: Path) -> None:
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    options = {"tls": TlsOptions(certfile=folder / "localhost.pem")}
    async with (
        tls_upstream(folder) as port,
        forwarding(forward_to(port, folder), "tls://127.0.0.1:0", **options) as listener,
        connected(listener) as raw,
        await TLSStream.wrap(raw, hostname="localhost", ssl_context=context) as client,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(client.send, LARGE)
        received = b""
        while len(received) < len(LARGE):
            received += await client.receive()
        assert received == LARGE
        await client.aclose()
        await until(lambda: not listener.connections)
        assert listener.stats().shutdown_counts == {"normal": 1}


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"ca_file": "stranger.pem"}, "certificate verify failed: unable to get local issuer certificate"),
        ({"ca_file": None}, "certificate verify failed: "),
        ({"server_name": "third.test"}, "Hostname mismatch, certificate is not valid for 'third.test'"),
    ],
)
async def test_a_stranger_gets_not_a_byte(
    folder: Path, options: dict[str, Any], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def remember(connection: StreamConnection) -> None:
        seen.append(await connection.receive())

    seen: list[bytes] = []
    if options.get("ca_file"):
        options = {"ca_file": folder / options["ca_file"]}
    async with tls_upstream(folder, remember) as port, forwarding(forward_to(port, folder, **options)) as listener:
        assert await talk(listener, b"secret") == b""
        await until(lambda: not listener.connections)
        assert listener.stats().shutdown_counts == {"upstream_failed": 1}
    assert not seen
    assert [
        message for message in caplog.messages if f"upstream tls://localhost:{port} failed: TLS handshake: " in message
    ]
    assert why in caplog.text


async def test_whoever_verifies_nothing_says_so(folder: Path) -> None:
    async with (
        tls_upstream(folder, name="other.test") as port,
        forwarding(forward_to(port, folder, ca_file=None, verify=False)) as listener,
    ):
        assert await talk(listener, b"hello") == b"hello"


async def test_the_upstream_learns_the_name_the_protocol_and_the_certificate(folder: Path) -> None:
    async def tell(connection: StreamConnection) -> None:
        tls = connection.tls
        assert tls is not None
        assert tls.peer_certificate is not None
        await connection.send(f"{tls.server_name} {tls.alpn} {tls.peer_certificate.common_name}".encode())

    certificate = TlsCertificate(certfile=folder / "client.pem")
    options: dict[str, Any] = {"server_name": "other.test", "alpn": ["mqtt"], "certificate": certificate}
    async with (
        tls_upstream(folder, tell, "other.test", client_ca=folder / "ca.pem", alpn=["mqtt"]) as port,
        forwarding(forward_to(port, folder, **options)) as listener,
        connected(listener) as client,
    ):
        assert await read_all(client) == b"other.test mqtt client"


async def test_tls_on_a_unix_socket_needs_a_name(folder: Path, tmp_path: Path) -> None:
    tls = TlsOptions(certfile=folder / "localhost.pem")
    upstream = f"tls://unix:{tmp_path}/upstream"
    mine = UpstreamTlsOptions(ca_file=folder / "ca.pem", server_name="localhost")
    async with (
        open_listener("upstream", upstream, echo, tls=tls),
        forwarding(ForwardHandler(upstream, tls=mine)) as listener,
    ):
        assert await talk(listener) == LARGE


async def test_a_port_of_this_machine_goes_by_localhost(folder: Path) -> None:
    async with tls_upstream(folder) as port:
        handler = ForwardHandler(f"tls://{port}", tls=UpstreamTlsOptions(ca_file=folder / "ca.pem"))
        async with forwarding(handler) as listener:
            assert await talk(listener, b"hello") == b"hello"


async def test_an_upstream_that_closes_without_a_word_of_tls_may_have_been_cut_short(folder: Path) -> None:
    async def tear(connection: StreamConnection) -> None:
        await connection.receive()
        await connection.send(b"half an ans")
        await anyio.sleep(0.05)
        connection.abort()

    async with tls_upstream(folder, tear) as port, forwarding(forward_to(port, folder)) as listener:
        async with connected(listener) as client:
            await client.send(b"?")
            with pytest.raises(anyio.BrokenResourceError):
                await read_all(client)
        await until(lambda: not listener.connections)
        assert listener.stats().shutdown_counts == {"upstream_reset": 1}


@pytest.mark.parametrize("answer", [b"", b"220 I speak no TLS at all\r\n", None])
async def test_an_upstream_that_speaks_no_tls_is_a_failure(folder: Path, answer: bytes | None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        handler = ForwardHandler(
            f"tls://localhost:{server.getsockname()[1]}",
            connect_timeout=0.5,
            tls=UpstreamTlsOptions(ca_file=folder / "ca.pem"),
        )
        before = 0
        for number in range(2):
            async with forwarding(handler) as listener:
                with connect(listener):
                    await anyio.wait_readable(server)
                    with server.accept()[0] as accepted:
                        if answer is not None:
                            accepted.sendall(answer)
                            accepted.close()
                        await until(lambda: not listener._site.watch.upstreams)
                await until(lambda: not listener.connections)
                assert listener.stats().shutdown_counts == {"upstream_failed": 1}
            if number == 0:
                before = open_files()
        await until(lambda: open_files() <= before)


async def test_killed_in_the_handshake_it_leaves_nothing(folder: Path) -> None:
    before = 0
    with socket.create_server(("127.0.0.1", 0)) as server:
        handler = forward_to(server.getsockname()[1], folder)
        for number in range(3):
            async with forwarding(handler, linger_timeout=0.1) as listener:
                with connect(listener):
                    await until(lambda: bool(listener._site.watch.upstreams))
                    await listener.kill()
                    assert not listener._site.watch.upstreams
            if number == 0:
                before = open_files()
        await until(lambda: open_files() <= before)
