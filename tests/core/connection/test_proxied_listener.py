"""A listener behind a proxy: whom it trusts, whom it judges and counts, and how long it waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import anyio
import anyio.lowlevel
import pytest
from tests.core.conftest import reasons, until
from tests.core.connection.proxied import PROXY, V1, V2, Tell, answer, connect, exchange, proxied, tell

from esockd_core import InvalidOption, ProxyOptions
from esockd_core._connection.stream import MAX_FAREWELLS
from esockd_core._options.changes import merge_options
from esockd_proxyproto import Endpoint, ProxyHeader, encode

if TYPE_CHECKING:
    from esockd_core import ConnectionEvent, Handler


pytestmark = pytest.mark.anyio


@pytest.fixture(params=[tell, Tell()], ids=["coroutine", "callback"])
def handler(request: pytest.FixtureRequest) -> Handler:
    chosen: Handler = request.param
    return chosen


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
async def test_whoever_stalls_at_any_byte_of_a_header_is_closed_by_its_deadline(
    handler: Handler, header: bytes
) -> None:
    async with proxied(handler, proxy_protocol=ProxyOptions(header_timeout=0.3), max_connections=1024) as listener:
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


async def test_a_proxy_that_is_not_trusted_is_refused_at_accept(handler: Handler) -> None:
    async with proxied(handler, proxy_protocol=ProxyOptions(trusted=["10.0.0.0/8"])) as listener:
        assert await exchange(listener) == b""
        stats = listener.stats()
    assert (stats.closed_forbidden, stats.accepted) == (1, 0)
    assert listener.refusals[0].reason.startswith("it is not a trusted proxy")


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
    handler: Handler,
    judged: Literal["source", "peer", "both"],
    rules: list[str],
    counts: dict[str, int],
    forbidden: int,
) -> None:
    proxy = ProxyOptions(trusted=["127.0.0.1"], access_rules_on=judged)
    async with proxied(handler, proxy_protocol=proxy, access_rules=rules) as listener:
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


async def test_each_connection_past_its_entrance_starts_and_stops_once_and_no_other(handler: Handler) -> None:
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
    assert events == [("connection_started", None), ("connection_stopped", "normal")]


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
    patient = ProxyOptions(header_timeout=3600)
    async with proxied(handler, proxy_protocol=patient) as listener, await connect(listener) as client:
        await client.send(V1[:10])
        await until(lambda: listener.stats().accepted == 1)
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
        proxied(handler, proxy_protocol=ProxyOptions(policy="use", header_timeout=0.2)) as listener,
        await connect(listener) as client,
    ):
        assert (await answer(client, 3)).startswith(b"('127.0.0.1'")
        await client.send(b"hello")
        assert (await answer(client, 5)).endswith(b"hello")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"proxy_protocol": "maybe"}, 'it takes True, False, "require", "use"'),
        ({"proxy_protocol": {"header_timeout": 0}}, "proxy_protocol.header_timeout is 0"),
        ({"proxy_protocol": {"header_timeout": None}}, "header_timeout is None: it takes seconds, more than 0"),
        ({"proxy_protocol": {"trusted": ["10.0.0.0/33"]}}, "proxy_protocol.trusted is '10.0.0.0/33': an IPv4 prefix"),
        ({"proxy_protocol": {"trusted": "10.0.0.0/8"}}, "it takes addresses and networks such as"),
        ({"proxy_protocol": {"access_rules_on": "client"}}, 'it takes "source", "peer" or "both"'),
        ({"proxy_protocol": {"policy": "skip"}}, "policy is 'skip'"),
        ({"max_handshaking": 0}, "max_handshaking is 0"),
        ({"handshake_timeout": -1}, "handshake_timeout is -1"),
    ],
)
def test_a_bad_option_is_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidOption, match=words):
        merge_options(None, options)
