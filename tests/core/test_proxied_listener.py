"""A listener behind a proxy: the PROXY header comes first, and its source is the client."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import SocketAttribute

from esockd_core import CallbackHandler, InvalidOption, ListenerOptions, StreamConnection, open_listener
from esockd_core._carried import MAX_FAREWELLS
from esockd_proxyproto import Command, Endpoint, ProxyHeader, SslInfo, SslSubtype, Tlv, TlvType, encode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from anyio.abc import SocketStream

    from esockd_core import ConnectionEvent, Handler, Listener

pytestmark = pytest.mark.anyio

CLIENT = Endpoint("192.0.2.7", 41000)
PROXY = Endpoint("192.0.2.1", 443)
V1 = encode(ProxyHeader(1, source=CLIENT, destination=PROXY))
V2 = encode(ProxyHeader(2, source=CLIENT, destination=PROXY, tlvs=[Tlv(TlvType.UNIQUE_ID, b"seven")]))
V2_IPV6 = encode(ProxyHeader(2, source=Endpoint("2001:db8::7", 41000), destination=Endpoint("2001:db8::1", 443)))
V1_IPV6 = b"PROXY TCP6 2001:db8::7 2001:db8::1 41000 443\r\n"
LOCAL = encode(ProxyHeader(2, Command.LOCAL))
UNKNOWN = b"PROXY UNKNOWN\r\n"


async def tell(connection: StreamConnection) -> None:
    """Say who the client is, then echo."""
    await connection.send(f"{connection.peername}|".encode())
    async for data in connection:
        await connection.send(data)


class Tell(CallbackHandler):
    def connection_made(self, connection: StreamConnection) -> None:
        connection.send_nowait(f"{connection.peername}|".encode())

    def data_received(self, connection: StreamConnection, data: bytes) -> None:
        connection.send_nowait(data)

    def connection_lost(self, connection: StreamConnection, error: Exception | None) -> None:
        assert connection.id


@pytest.fixture(params=[tell, Tell()], ids=["coroutine", "callback"])
def handler(request: pytest.FixtureRequest) -> Handler:
    chosen: Handler = request.param
    return chosen


@asynccontextmanager
async def proxied(handler: Handler, **options: Any) -> AsyncIterator[Listener]:
    with anyio.fail_after(20):
        async with open_listener("proxied", "127.0.0.1:0", handler, **{"proxy_protocol": True, **options}) as listener:
            yield listener


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - a listener tells nobody; the deadline of `proxied` bounds it
        await anyio.sleep(0.01)


async def connect(listener: Listener) -> SocketStream:
    assert listener.port is not None
    return await anyio.connect_tcp("127.0.0.1", listener.port)


async def answer(client: SocketStream, size: int = 65_536) -> bytes:
    """What comes until `size` bytes or the end."""
    received = b""
    with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
        while len(received) < size:
            received += await client.receive()
    return received


async def exchange(listener: Listener, *pieces: bytes) -> bytes:
    """Send pieces one after the other, finish, and give all that came back."""
    async with await connect(listener) as client:
        with suppress(anyio.BrokenResourceError, OSError):  # turned away before it had finished
            for piece in pieces:
                await client.send(piece)
            await client.send_eof()
        return await answer(client)


async def reasons(listener: Listener, count: int = 1) -> dict[str, int]:
    """The shutdown reasons once so many connections have ended."""
    await until(lambda: sum(listener.stats().shutdown_counts.values()) >= count)
    return listener.stats().shutdown_counts


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


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
async def test_whoever_stalls_at_any_byte_of_a_header_is_closed_by_its_deadline(
    handler: Handler, header: bytes
) -> None:
    async with proxied(handler, proxy_protocol_timeout=0.3, max_connections=1024) as listener:
        stalled = []
        for sent in range(len(header)):
            client = await connect(listener)
            await client.send(header[:sent]) if sent else None
            stalled.append(client)
        assert await exchange(listener, V1 + b"ok") == b"('192.0.2.7', 41000)|ok"
        counts = await reasons(listener, len(header) + 1)
        assert counts == {"normal": 1, "proxy_timeout": len(header)}
        for client in stalled:
            assert await answer(client) == b""
            await client.aclose()


async def test_every_refused_source_is_told_why_however_many_were_told_before(handler: Handler) -> None:
    async with proxied(handler, access_rules=["deny 192.0.2.7"], refuse_with=b"not you") as listener:
        for _ in range(MAX_FAREWELLS + 2):
            assert await exchange(listener, V1 + b"unread") == b"not you"


async def test_an_upstream_that_is_not_trusted_is_refused_at_accept(handler: Handler) -> None:
    async with proxied(handler, trusted=["10.0.0.0/8"]) as listener:
        assert await exchange(listener) == b""
        stats = listener.stats()
    assert (stats.closed_forbidden, stats.accepted) == (1, 0)
    assert listener.refusals[0].reason.startswith("it is no trusted upstream")


@pytest.mark.parametrize(
    ("judged", "rules", "counts", "forbidden"),
    [
        ("source", ["deny 192.0.2.7"], {"source_forbidden": 1}, 0),
        ("source", ["deny 127.0.0.1"], {"normal": 1}, 0),
        ("peer", ["deny 192.0.2.7"], {"normal": 1}, 0),
        ("peer", ["deny 127.0.0.1"], {}, 1),
        ("both", ["deny 192.0.2.7"], {"source_forbidden": 1}, 0),
        ("both", ["deny 127.0.0.1"], {}, 1),
    ],
)
async def test_access_rules_judge_whom_they_are_told_to(
    handler: Handler, judged: str, rules: list[str], counts: dict[str, int], forbidden: int
) -> None:
    async with proxied(handler, trusted=["127.0.0.1"], access_rules_on=judged, access_rules=rules) as listener:
        await exchange(listener, V1 + b"hello")
        await until(lambda: bool(listener.stats().closed_forbidden or listener.stats().shutdown_counts))
        stats = listener.stats()
    assert (stats.shutdown_counts, stats.closed_forbidden) == (counts, forbidden)
    assert stats.accepted + stats.closed_forbidden == 1


async def test_limits_for_one_source_count_the_source(handler: Handler) -> None:
    other = encode(ProxyHeader(2, source=Endpoint("192.0.2.8", 1), destination=PROXY))
    async with proxied(handler, max_connections_per_source=1) as listener, await connect(listener) as first:
        await first.send(V1)
        assert await answer(first, 21) == b"('192.0.2.7', 41000)|"
        assert await exchange(listener, V2) == b""
        assert await reasons(listener, 1) == {"source_max_limit": 1}
        assert await exchange(listener, other) == b"('192.0.2.8', 1)|"
        await first.send_eof()
        await reasons(listener, 3)
        assert await exchange(listener, V1) == b"('192.0.2.7', 41000)|"


async def test_a_rate_for_one_source_counts_the_source(handler: Handler) -> None:
    async with proxied(handler, max_conn_rate_per_source=1) as listener:
        assert await exchange(listener, V1)
        assert await exchange(listener, V1) == b""
        assert await reasons(listener, 2) == {"normal": 1, "source_rate_limited": 1}


async def test_each_connection_starts_and_stops_once_whatever_its_header(handler: Handler) -> None:
    events: list[tuple[str, str | None]] = []

    def note(event: ConnectionEvent) -> None:
        assert event.connection.peername
        events.append((event.kind, event.reason))

    async with proxied(handler, on_event=note) as listener:
        await exchange(listener, V1)
        await exchange(listener, b"junk")
        await exchange(listener)
        await reasons(listener, 3)
        assert listener.stats().current_connections == 0
    assert sorted(events, key=str) == sorted(
        [("connection_started", None)] * 3
        + [("connection_stopped", reason) for reason in ("normal", "proxy_closed", "proxy_invalid")],
        key=str,
    )


async def test_more_than_max_handshaking_at_once_are_refused_as_overload(handler: Handler) -> None:
    async with proxied(handler, max_handshaking=2) as listener:
        async with await connect(listener), await connect(listener):
            await until(lambda: listener.stats().accepted == 2)
            assert await exchange(listener) == b""
            assert listener.stats().closed_overloaded == 1
            assert "max_handshaking is 2" in listener.refusals[0].reason
        await reasons(listener, 2)
        assert await exchange(listener, V1) == b"('192.0.2.7', 41000)|"


async def test_a_listener_that_closes_serves_who_is_in_the_middle_of_a_header(handler: Handler) -> None:
    async with proxied(handler) as listener, await connect(listener) as client:
        await client.send(V1[:10])
        await until(lambda: listener.stats().accepted == 1)
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(listener.close)
            await until(lambda: listener.state == "draining")
            await client.send(V1[10:])
            assert await answer(client, 21) == b"('192.0.2.7', 41000)|"
            await client.send_eof()


async def test_a_listener_that_is_killed_does_not_wait_for_a_header(handler: Handler) -> None:
    async with proxied(handler) as listener, await connect(listener) as client:
        await client.send(V1[:10])
        await until(lambda: listener.stats().accepted == 1)
        with anyio.fail_after(0.9):
            await listener.kill()
        assert listener.stats().shutdown_counts == {"shutdown": 1}


@pytest.mark.parametrize(
    ("policy", "sent", "received"),
    [
        ("use", V1 + b"x", b"('192.0.2.7', 41000)|x"),
        ("use", b"PROX!", b"127|PROX!"),
        ("use", b"\r\n\r\n\x00\r\nQUI", b"127|\r\n\r\n\x00\r\nQUI"),
        ("ignore", V2 + b"x", b"127|x"),
        ("ignore", b"hello", b"127|hello"),
        ("reject", V1 + b"x", b""),
        ("reject", b"hello", b"127|hello"),
        ("skip", V1, b"127|" + V1),
    ],
)
@pytest.mark.parametrize("piece", [1, 1000])
async def test_other_policies_have_explicit_names(
    handler: Handler, policy: str, sent: bytes, received: bytes, piece: int
) -> None:
    async with proxied(handler, proxy_protocol=policy, max_connections_per_source=None) as listener:
        answered = await exchange(listener, *(sent[at : at + piece] for at in range(0, len(sent), piece)))
        if answered.startswith(b"('127.0.0.1'"):
            answered = b"127|" + answered.partition(b"|")[2]
        assert answered == received


async def test_where_a_header_may_be_missing_a_silent_client_is_served_after_the_timeout(handler: Handler) -> None:
    async with (
        proxied(handler, proxy_protocol="use", proxy_protocol_timeout=0.2) as listener,
        await connect(listener) as client,
    ):
        assert (await answer(client, 3)).startswith(b"('127.0.0.1'")
        await client.send(b"hello")
        assert (await answer(client, 5)).endswith(b"hello")


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
    assert tls.ended_upstream
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


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"proxy_protocol": "maybe"}, 'it is True, False, "require"'),
        ({"proxy_protocol": True, "proxy_protocol_timeout": 0}, "proxy_protocol_timeout is 0"),
        ({"proxy_protocol": True, "proxy_protocol_timeout": None}, "nobody may wait for ever"),
        ({"proxy_protocol": True, "trusted": ["10.0.0.0/33"]}, "trusted: "),
        ({"proxy_protocol": True, "trusted": "10.0.0.0/8"}, "takes several networks"),
        ({"proxy_protocol": True, "access_rules_on": "client"}, 'it is "source", "peer" or "both"'),
        ({"trusted": ["10.0.0.0/8"]}, "trusted does nothing without proxy_protocol"),
        ({"access_rules_on": "peer"}, "access_rules_on does nothing without proxy_protocol"),
        ({"proxy_protocol_timeout": 2}, "proxy_protocol_timeout does nothing without proxy_protocol"),
        ({"max_handshaking": 0}, "max_handshaking is 0"),
        ({"handshake_timeout": -1}, "handshake_timeout is -1"),
    ],
)
def test_a_bad_option_is_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidOption, match=words):
        ListenerOptions(**options)
