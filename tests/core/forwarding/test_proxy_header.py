"""The PROXY header that a forwarder sends: who the client is, in either version, ahead of everything else."""

from __future__ import annotations

import random
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trustme
from anyio.streams.tls import TLSStream
from tests.core.conftest import until
from tests.core.forwarding.peers import connected, forwarding, read_all, upstream

from esockd_core import StreamConnection, TlsOptions, UpstreamTlsOptions, open_listener
from esockd_core._forwarding.proxy_header import _endpoint
from esockd_core.handlers import ForwardHandler
from esockd_proxyproto import (
    Command,
    Endpoint,
    Family,
    ProxyHeader,
    SslInfo,
    SslSubtype,
    Tlv,
    TlvType,
    UnixEndpoint,
    decode,
    encode,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from anyio.abc import SocketStream

pytestmark = pytest.mark.anyio

AUTHORITY = trustme.CA()
BOTH = pytest.mark.parametrize("version", ["v1", "v2"])


@asynccontextmanager
async def recording() -> AsyncIterator[tuple[int, list[bytes]]]:
    """An upstream that remembers what each connection sent."""

    async def remember(stream: SocketStream) -> None:
        seen.append(await read_all(stream))

    seen: list[bytes] = []
    async with upstream(remember) as port:
        yield port, seen


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("localhost", "sensor-7"):
        certificate = AUTHORITY.issue_cert(name, common_name=name)
        certificate.private_key_and_cert_chain_pem.write_to_path(str(folder / f"{name}.pem"))
    AUTHORITY.cert_pem.write_to_path(str(folder / "ca.pem"))
    return folder


async def say(client: Any, data: bytes) -> None:
    await client.send(data)
    await client.send_eof()
    await read_all(client)


@BOTH
async def test_the_header_names_the_client_and_comes_first(version: Any) -> None:
    data = random.Random(3).randbytes(300_000)
    async with (
        recording() as (port, seen),
        forwarding(ForwardHandler(("127.0.0.1", port), send_proxy=version)) as listener,
    ):
        async with connected(listener) as client:
            local: Any = client.extra(anyio.abc.SocketAttribute.local_address)
            gateway_port = listener.port or 0
            await say(client, data)
        await until(lambda: bool(seen))
    header, consumed = decode(seen[0])
    assert header.version == int(version[1])
    assert header.command is Command.PROXY
    assert header.source == Endpoint(*local)
    assert header.destination == Endpoint("127.0.0.1", gateway_port)
    assert seen[0][consumed:] == data


@BOTH
async def test_ipv6_clients_are_named_too(version: Any) -> None:
    async with (
        recording() as (port, seen),
        forwarding(ForwardHandler(("127.0.0.1", port), send_proxy=version), "[::1]:0") as listener,
    ):
        assert listener.port is not None
        async with await anyio.connect_tcp("::1", listener.port) as client:
            await say(client, b"hello")
        await until(lambda: bool(seen))
    header, _ = decode(seen[0])
    assert header.family is Family.INET6
    assert header.source.host == "::1"  # type: ignore[union-attr]


@BOTH
async def test_the_client_that_a_header_in_named_is_passed_on(version: Any) -> None:
    header_in = ProxyHeader(source=Endpoint("192.0.2.7", 41000), destination=Endpoint("198.51.100.1", 443))
    async with recording() as (port, seen):
        handler = ForwardHandler(("127.0.0.1", port), send_proxy=version)
        async with forwarding(handler, proxy_protocol=True) as listener:
            async with connected(listener) as client:
                await say(client, encode(header_in) + b"hello")
            await until(lambda: bool(seen))
    header, consumed = decode(seen[0])
    assert (header.source, header.destination) == (header_in.source, header_in.destination)
    assert seen[0][consumed:] == b"hello"


@pytest.mark.parametrize("header_in", [ProxyHeader(command=Command.LOCAL), ProxyHeader(1)])
async def test_a_header_in_that_names_nobody_leaves_the_sockets_own_address(header_in: ProxyHeader) -> None:
    async with recording() as (port, seen):
        handler = ForwardHandler(("127.0.0.1", port), send_proxy="v2")
        async with forwarding(handler, proxy_protocol=True) as listener:
            async with connected(listener) as client:
                await say(client, encode(header_in) + b"hello")
            await until(lambda: bool(seen))
    header, _ = decode(seen[0])
    assert header.command is Command.PROXY
    assert header.source.host == "127.0.0.1"  # type: ignore[union-attr]


@BOTH
async def test_unix_clients_that_a_header_in_named_fit_into_version_2(version: Any) -> None:
    header_in = ProxyHeader(source=UnixEndpoint("/run/a"), destination=UnixEndpoint("/run/b"))
    async with recording() as (port, seen):
        handler = ForwardHandler(("127.0.0.1", port), send_proxy=version)
        async with forwarding(handler, proxy_protocol=True) as listener:
            async with connected(listener) as client:
                await say(client, encode(header_in) + b"hello")
            await until(lambda: bool(seen))
    header, _ = decode(seen[0])
    assert header.source == (header_in.source if version == "v2" else None)


@pytest.mark.parametrize(("version", "expected"), [("v1", b"PROXY UNKNOWN\r\n"), ("v2", None)])
async def test_a_unix_client_is_nobody_in_particular(version: Any, expected: bytes | None, tmp_path: Path) -> None:
    async with recording() as (port, seen):
        handler = ForwardHandler(("127.0.0.1", port), send_proxy=version)
        async with forwarding(handler, f"unix:{tmp_path}/gateway"):
            async with await anyio.connect_unix(f"{tmp_path}/gateway") as client:
                await say(client, b"hello")
            await until(lambda: bool(seen))
    header, consumed = decode(seen[0])
    assert header.source is None
    if expected is None:
        assert header.command is Command.LOCAL
    else:
        assert seen[0][:consumed] == expected
    assert seen[0][consumed:] == b"hello"


@pytest.mark.parametrize("with_certificate", [True, False])
async def test_version_2_tells_of_the_clients_tls(folder: Path, with_certificate: bool) -> None:
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    if with_certificate:
        context.set_alpn_protocols(["mqtt"])
        context.load_cert_chain(folder / "sensor-7.pem")
    tls = TlsOptions(certfile=folder / "localhost.pem", client_ca=folder / "ca.pem", verify="optional", alpn=("mqtt",))
    async with recording() as (port, seen):
        handler = ForwardHandler(("127.0.0.1", port), send_proxy="v2")
        async with forwarding(handler, "tls://127.0.0.1:0", tls=tls) as listener, connected(listener) as raw:
            client = await TLSStream.wrap(raw, hostname="localhost", ssl_context=context)
            await client.send(b"hello")
            await client.aclose()
            await until(lambda: bool(seen))
    header, consumed = decode(seen[0])
    assert (header.authority, header.alpn) == ("localhost", b"mqtt" if with_certificate else None)
    assert header.ssl is not None
    assert header.ssl.is_tls
    assert header.ssl.version == "TLSv1.3"
    assert header.ssl.cipher is not None
    assert header.ssl.is_verified == with_certificate
    assert header.ssl.common_name == ("sensor-7" if with_certificate else None)
    assert seen[0][consumed:] == b"hello"


async def test_tls_that_ended_at_the_proxy_in_front_is_told_of_too() -> None:
    """What two gateways in a row say is what the first one saw."""

    async def tell(connection: StreamConnection) -> None:
        tls = connection.tls
        assert tls is not None
        assert tls.peer_certificate is not None
        seen.append((connection.peername, tls.server_name, tls.peer_certificate.common_name, tls.ended_at_proxy))

    seen: list[tuple[Any, ...]] = []
    facts = SslInfo(5, 0, (Tlv(SslSubtype.VERSION, b"TLSv1.2"), Tlv(SslSubtype.COMMON_NAME, b"sensor-7")))
    header = ProxyHeader(
        source=Endpoint("192.0.2.7", 41000),
        destination=Endpoint("192.0.2.1", 443),
        tlvs=[Tlv(TlvType.AUTHORITY, b"mqtt.example"), facts.to_tlv()],
    )
    async with open_listener("last", "127.0.0.1:0", tell, proxy_protocol=True) as last:
        handler = ForwardHandler(("127.0.0.1", last.port or 0), send_proxy="v2")
        async with forwarding(handler, proxy_protocol=True) as listener, connected(listener) as client:
            await say(client, encode(header))
    assert seen == [(("192.0.2.7", 41000), "mqtt.example", "sensor-7", True)]


async def test_the_header_comes_before_the_handshake_with_the_upstream(folder: Path) -> None:
    async def tell(connection: StreamConnection) -> None:
        seen.append((connection.peername, await read_all(connection)))

    seen: list[tuple[Any, bytes]] = []
    tls = TlsOptions(certfile=folder / "localhost.pem")
    async with open_listener("upstream", "tls://127.0.0.1:0", tell, tls=tls, proxy_protocol=True) as last:
        mine = UpstreamTlsOptions(ca_file=folder / "ca.pem")
        handler = ForwardHandler(f"tls://localhost:{last.port}", send_proxy="v2", tls=mine)
        async with forwarding(handler) as listener, connected(listener) as client:
            local = client.extra(anyio.abc.SocketAttribute.local_address)
            await say(client, b"hello")
    assert seen == [(local, b"hello")]


def test_a_header_has_no_interface_in_an_address() -> None:
    assert _endpoint(("fe80::1%eth0", 5)) == Endpoint("fe80::1", 5)
