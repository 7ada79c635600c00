"""Counterparts of esockd's own cases for the PROXY protocol, TLS options and client certificates.

Each test names the case of emqx/esockd that it stands for (test/esockd_SUITE.erl, esockd_proxy_protocol_SUITE.erl,
esockd_peercert_SUITE.erl and esockd_ssl_SUITE.erl), and sends the same bytes from outside. The cases of the parser
alone are in tests/proxyproto.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest
from tests.core.conftest import echo, reasons
from tests.core.tls_clients import AUTHORITY, client_context, run
from tests.patience import PATIENCE_S

from esockd_core import InvalidOption, Listener, ProxyOptions, StreamConnection, TlsOptions, open_listener

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from anyio.abc import SocketStream

    from esockd_core import TlsInfo

pytestmark = pytest.mark.anyio

V2 = bytes([13, 10, 13, 10, 0, 13, 10, 81, 85, 73, 84, 10, 33, 17, 0, 12])
V2 += bytes([127, 50, 210, 1, 210, 21, 16, 142, 250, 32, 1, 181])
V2_SOURCE = ("127.50.210.1", 64032)


@asynccontextmanager
async def proxied(**proxy: Any) -> AsyncIterator[tuple[Listener, SocketStream]]:
    with anyio.fail_after(PATIENCE_S):
        async with open_listener("pp", "127.0.0.1:0", echo, proxy_protocol=ProxyOptions(**proxy)) as listener:
            assert listener.port is not None
            async with await anyio.connect_tcp("127.0.0.1", listener.port) as client:
                yield listener, client


async def rest(client: SocketStream) -> bytes:
    received = b""
    with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
        while True:
            received += await client.receive()
    return received


@pytest.mark.parametrize(
    ("header", "source"),
    [
        pytest.param(b"PROXY TCP4 192.168.1.1 192.168.1.2 80 81\r\n", ("192.168.1.1", 80), id="t_ppv1_tcp4_connect"),
        pytest.param(b"PROXY TCP6 ::1 ::1 6000 50000\r\n", ("::1", 6000), id="t_ppv1_tcp6_connect"),
        pytest.param(V2, V2_SOURCE, id="t_ppv2_connect"),
        pytest.param(b"PROXY UNKNOWN\r\n", None, id="t_ppv1_unknown"),
    ],
)
async def test_ppv1_and_ppv2_connect(header: bytes, source: tuple[str, int] | None) -> None:
    async with proxied() as (listener, client):
        await client.send(header)
        await client.send(b"Hello")
        assert await client.receive() == b"Hello"
        connection = listener.connections[0]
        assert connection.peername == (source or connection.socket_peername)


async def test_ppv1_garbage_data() -> None:
    """t_ppv1_garbage_data."""
    async with proxied() as (listener, client):
        with suppress(anyio.BrokenResourceError, OSError):  # refused at the first byte
            await client.send(b"************\r\n")
            await client.send(b"GarbageData")
        assert await rest(client) == b""
        assert await reasons(listener) == {"proxy_invalid": 1}


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param((), id="t_ppv2_connect_first_marker_timeout"),
        pytest.param((V2[:2],), id="t_ppv2_connect_header_timeout"),
        pytest.param((V2[:2], V2[2:24]), id="t_ppv2_connect_proxy_info_timeout"),
    ],
)
@pytest.mark.parametrize("goes_on", [True, False])
async def test_ppv2_connect_timeouts(sent: tuple[bytes, ...], goes_on: bool) -> None:
    """One deadline for the whole header, wherever the client pauses; esockd had one for each part."""
    async with proxied(header_timeout=10 if goes_on else 0.2) as (listener, client):
        for piece in sent:
            with suppress(anyio.BrokenResourceError):  # timed out before the second
                await client.send(piece)
            await anyio.sleep(0.02)
        if goes_on:
            await client.send(V2[len(b"".join(sent)) :])
            await client.send(b"Hello")
            assert await client.receive() == b"Hello"
            assert listener.connections[0].peername == V2_SOURCE
        else:
            assert await rest(client) == b""
            assert await reasons(listener) == {"proxy_timeout": 1}


def issue(folder: Path, name: str, *identities: str) -> Path:
    file = folder / f"{name}.pem"
    issued = AUTHORITY.issue_cert("localhost", *identities, common_name=name, organization_name="Example")
    issued.private_key_and_cert_chain_pem.write_to_path(str(file))
    return file


def connect(listener: Listener, context: ssl.SSLContext) -> ssl.SSLSocket:
    assert listener.port is not None
    raw = socket.create_connection(("127.0.0.1", listener.port), timeout=PATIENCE_S)
    return context.wrap_socket(raw, server_hostname="localhost")


def exchange(client: ssl.SSLSocket, data: bytes) -> bytes:
    client.sendall(data)
    return client.recv(len(data))


def common_name(client: ssl.SSLSocket) -> str:
    certificate: dict[str, Any] = client.getpeercert() or {}
    return str(dict(pair[0] for pair in certificate["subject"])["commonName"])


async def test_update_tls_options(tmp_path: Path) -> None:
    """t_update_tls_options: set_options merges, reset_options replaces, and open connections go on."""
    first, changed = issue(tmp_path, "Server"), issue(tmp_path, "Changed")
    with anyio.fail_after(PATIENCE_S):
        async with open_listener("echo_tls", "tls://127.0.0.1:0", echo, tls=TlsOptions(certfile=first)) as listener:
            with await run(lambda: connect(listener, client_context())) as one:
                with pytest.raises(InvalidOption, match="needs client_ca"):
                    await listener.set_options(tls={"verify": "required"})
                await listener.set_options(tls={"certfile": changed, "maximum_version": "1.2"})
                with await run(lambda: connect(listener, client_context())) as two:
                    assert await run(lambda: exchange(one, b"Sock1")) == b"Sock1"
                    assert await run(lambda: exchange(two, b"Sock2")) == b"Sock2"
                    assert (common_name(one), one.version()) == ("Server", "TLSv1.3")
                    assert (common_name(two), two.version()) == ("Changed", "TLSv1.2")
                    with pytest.raises(InvalidOption, match="is below the minimum_version"):
                        await listener.set_options(tls={"minimum_version": "1.3"})
                    await listener.reset_options(tls=TlsOptions(certfile=first, minimum_version="1.3"))
                    with await run(lambda: connect(listener, client_context())) as three:
                        for number, client in enumerate((one, two, three)):
                            data = b"Sock%d" % number
                            assert await run(partial(exchange, client, data)) == data
                        assert (common_name(three), three.version()) == ("Server", "TLSv1.3")
                    with pytest.raises(ssl.SSLError):
                        await run(lambda: connect(listener, client_context(ssl.TLSVersion.TLSv1_2)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"minimum_version": "dtlsv1.2"}, "minimum_version is 'dtlsv1.2'"),
        ({"maximum_version": "sslv3"}, "maximum_version is 'sslv3'"),
        ({"ciphers": "none of these"}, "has no such cipher"),
    ],
)
def test_bad_tls_options(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    """t_bad_tls_options: told before anything opens."""
    with pytest.raises(InvalidOption, match=words):
        TlsOptions(certfile=issue(tmp_path, "Server"), **options)


@pytest.mark.parametrize(
    ("identities", "expected"),
    [
        (
            ("example.com", "www.example.com", "192.168.1.100", "2001:db8::1", "device@example.com"),
            [
                ("DNS", "example.com"),
                ("DNS", "www.example.com"),
                ("IP Address", "192.168.1.100"),
                ("IP Address", "2001:db8::1"),
                ("email", "device@example.com"),
            ],
        ),
        ((), []),
    ],
    ids=["t_peer_cert_subject_alt_names", "t_peer_cert_subject_alt_names_sparse"],
)
async def test_peercert(tmp_path: Path, identities: tuple[str, ...], expected: list[tuple[str, str]]) -> None:
    """t_subject, t_common_name, t_subject_alt_names, t_peer_cert_issuer and t_peer_cert_validity."""
    (tmp_path / "ca.pem").write_bytes(AUTHORITY.cert_pem.bytes())
    tls = TlsOptions(certfile=issue(tmp_path, "Server"), client_ca=tmp_path / "ca.pem")
    seen: list[TlsInfo | None] = []

    async def look(connection: StreamConnection) -> None:
        seen.append(connection.tls)
        await connection.send(b"seen")

    context = client_context()
    context.load_cert_chain(issue(tmp_path, "CLIENT", *identities))
    with anyio.fail_after(PATIENCE_S):
        async with open_listener("peercert", "tls://127.0.0.1:0", look, tls=tls) as listener:
            with await run(lambda: connect(listener, context)) as client:
                assert await run(lambda: client.recv(4)) == b"seen"
    info = seen[0]
    assert info is not None
    certificate = info.peer_certificate
    assert certificate is not None
    assert certificate.common_name == "CLIENT"
    assert certificate.subject is not None
    assert certificate.subject.startswith("CN=CLIENT,OU=")
    assert certificate.subject.endswith(",O=Example")
    assert certificate.issuer is not None
    assert certificate.issuer.startswith("OU=Testing CA")
    assert certificate.not_before is not None
    assert certificate.not_after is not None
    assert certificate.not_before < certificate.not_after
    assert certificate.subject_alternative_names == (("DNS", "localhost"), *expected)
