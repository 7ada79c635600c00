"""The PROXY header of a client: taken once, from any segments, and a bad one ends the connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import SocketAttribute
from tests.core.conftest import reasons
from tests.core.connection.proxied import (
    CLIENT,
    LOCAL,
    PROXY,
    UNKNOWN,
    V1,
    V1_IPV6,
    V2,
    V2_IPV6,
    Tell,
    answer,
    connect,
    exchange,
    proxied,
    tell,
)

from esockd_proxyproto import ProxyHeader, SslInfo, SslSubtype, Tlv, TlvType, encode

if TYPE_CHECKING:
    from esockd_core import Handler, StreamConnection


pytestmark = pytest.mark.anyio


@pytest.fixture(params=[tell, Tell()], ids=["coroutine", "callback"])
def handler(request: pytest.FixtureRequest) -> Handler:
    chosen: Handler = request.param
    return chosen


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
async def test_a_header_and_payload_in_one_segment(handler: Handler, header: bytes) -> None:
    async with proxied(handler) as listener:
        assert await exchange(listener, header + b"hello") == b"('192.0.2.7', 41000)|hello"
        assert await reasons(listener) == {"normal": 1}


@pytest.mark.parametrize("header", [V1_IPV6, V2_IPV6], ids=["v1", "v2"])
async def test_a_header_of_ipv6(handler: Handler, header: bytes) -> None:
    async with proxied(handler) as listener:
        assert await exchange(listener, header + b"hello") == b"('2001:db8::7', 41000)|hello"


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
async def test_a_header_byte_by_byte_with_payload_behind_it(handler: Handler, header: bytes) -> None:
    async with proxied(handler) as listener, await connect(listener) as client:
        for at in range(len(header + b"hello")):
            await client.send((header + b"hello")[at : at + 1])
            await anyio.lowlevel.checkpoint()
        assert await answer(client, 26) == b"('192.0.2.7', 41000)|hello"


@pytest.mark.parametrize("header", [LOCAL, UNKNOWN], ids=["local", "unknown"])
async def test_a_header_without_a_client_keeps_the_addresses_of_the_socket(handler: Handler, header: bytes) -> None:
    async with proxied(handler) as listener, await connect(listener) as client:
        await client.send(header + b"hello")
        own = client.extra(SocketAttribute.local_address)
        expected = f"{own}|hello".encode()
        assert await answer(client, len(expected)) == expected


async def test_a_handler_that_speaks_first_does_so_behind_the_header(handler: Handler) -> None:
    async with proxied(handler) as listener, await connect(listener) as client:
        await client.send(V1)
        assert await answer(client, 21) == b"('192.0.2.7', 41000)|"


async def test_a_connection_shows_the_header_and_both_addresses() -> None:
    seen: list[StreamConnection] = []

    async def look(connection: StreamConnection) -> None:
        seen.append(connection)
        assert connection.extra(SocketAttribute.remote_address) == ("192.0.2.7", 41000)
        assert connection.extra(SocketAttribute.remote_port) == 41000
        assert connection.extra(SocketAttribute.raw_socket).fileno() > 0
        async for _ in connection:
            pass

    async with proxied(look) as listener:
        await exchange(listener, V2)
        assert await reasons(listener) == {"normal": 1}
    assert seen[0].peername == ("192.0.2.7", 41000)
    assert seen[0].socket_peername[0] == "127.0.0.1"
    assert seen[0].proxy is not None
    assert seen[0].proxy.unique_id == b"seven"
    assert seen[0].tls is None


async def test_there_is_one_header_only_and_a_second_is_payload(handler: Handler) -> None:
    async with proxied(handler) as listener:
        assert await exchange(listener, V2 + V2) == b"('192.0.2.7', 41000)|" + V2


async def test_a_header_is_payload_where_none_is_expected(handler: Handler) -> None:
    """Whoever could send one unasked could be anybody."""
    async with proxied(handler, proxy_protocol=False) as listener:
        received = await exchange(listener, V2)
        assert received.startswith(b"('127.0.0.1', ")
        assert received.endswith(V2)


@pytest.mark.parametrize(
    "bad",
    [b"GET / HTTP/1.1\r\n\r\n", b"PROXY TCP4 1.1.1.1 2.2.2.2 1 65536\r\n", b"PROXY " + b"x" * 200, V2[:12] + b"\x31"],
    ids=["none", "port above 65535", "too long", "version 3"],
)
async def test_a_bad_header_ends_the_connection_without_the_handler(handler: Handler, bad: bytes) -> None:
    async with proxied(handler) as listener:
        assert await exchange(listener, bad) == b""
        assert await reasons(listener) == {"proxy_invalid": 1}


async def test_a_client_without_a_header_is_refused_at_its_first_byte(handler: Handler) -> None:
    """A binary protocol sends no newline: waiting for one would hang until the timeout."""
    async with proxied(handler) as listener, await connect(listener) as client:
        await client.send(b"\x10")
        assert await answer(client) == b""
        assert await reasons(listener) == {"proxy_invalid": 1}


async def test_a_probe_that_closes_without_a_byte_is_a_counter_and_no_log_line(
    handler: Handler, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "esockd_core")
    async with proxied(handler) as listener:
        assert await exchange(listener) == b""
        assert await reasons(listener) == {"proxy_closed": 1}
    assert not caplog.records


async def test_a_header_cut_short_is_invalid(handler: Handler) -> None:
    async with proxied(handler) as listener:
        assert await exchange(listener, V1[:-1]) == b""
        assert await reasons(listener) == {"proxy_invalid": 1}


async def test_tls_that_ended_at_the_proxy_is_described() -> None:
    info = SslInfo(
        client=7,
        verify=0,
        tlvs=(
            Tlv(SslSubtype.VERSION, b"TLSv1.3"),
            Tlv(SslSubtype.COMMON_NAME, b"sensor 7"),
            Tlv(SslSubtype.CIPHER, b"TLS_AES_256_GCM_SHA384"),
        ),
    )
    header = ProxyHeader(
        source=CLIENT,
        destination=PROXY,
        tlvs=[Tlv(TlvType.ALPN, b"mqtt"), Tlv(TlvType.AUTHORITY, b"mail.example.org"), info.to_tlv()],
    )
    seen: list[StreamConnection] = []

    async def look(connection: StreamConnection) -> None:
        seen.append(connection)

    async with proxied(look) as listener:
        await exchange(listener, encode(header))
        await reasons(listener)
    tls = seen[0].tls
    assert tls is not None
    assert tls.ended_at_proxy
    assert (tls.version, tls.cipher, tls.server_name, tls.alpn) == (
        "TLSv1.3",
        "TLS_AES_256_GCM_SHA384",
        "mail.example.org",
        "mqtt",
    )
    assert tls.peer_certificate is not None
    assert (tls.peer_certificate.common_name, tls.peer_certificate.is_verified) == ("sensor 7", True)


@pytest.mark.parametrize("der", [b"rubbish", b"", b"\x30\x82\xff\xff"])
async def test_a_malformed_certificate_in_a_header_is_no_reason_to_refuse(handler: Handler, der: bytes) -> None:
    info = SslInfo(client=7, verify=0, tlvs=(Tlv(SslSubtype.CLIENT_CERTIFICATE, der),))
    header = ProxyHeader(source=CLIENT, destination=PROXY, tlvs=[info.to_tlv()])
    async with proxied(handler) as listener:
        assert await exchange(listener, encode(header) + b"hello") == b"('192.0.2.7', 41000)|hello"


async def test_a_header_with_malformed_facts_of_tls_is_invalid(handler: Handler) -> None:
    header = ProxyHeader(source=CLIENT, destination=PROXY, tlvs=[Tlv(TlvType.SSL, b"\x01")])
    async with proxied(handler) as listener:
        assert await exchange(listener, encode(header)) == b""
        assert await reasons(listener) == {"proxy_invalid": 1}
