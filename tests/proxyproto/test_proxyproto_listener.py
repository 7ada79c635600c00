"""The listener wrapper: the five policies, and peers that misbehave, on every backend."""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.abc import ByteStream, Listener, SocketAttribute, SocketStream

from esockd_proxyproto import (
    Endpoint,
    InvalidHeader,
    InvalidOption,
    Policy,
    ProxyHeader,
    Tolerance,
    encode,
    policy_by_network,
)
from esockd_proxyproto.listener import ProxyProtocolListener

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from anyio.abc import TaskGroup

    from esockd_proxyproto.streams import ProxiedStream

pytestmark = pytest.mark.anyio

V1 = b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n"
V2 = encode(ProxyHeader(source=Endpoint("192.0.2.1", 56324), destination=Endpoint("198.51.100.7", 443)))


async def tell_peer(stream: ProxiedStream) -> None:
    """Answer with the peer's host as the handler sees it, and what it sent."""
    async with stream:
        data = b"".join([data async for data in stream])
        await stream.send(stream.extra(SocketAttribute.remote_address)[0].encode() + b"|" + data)


class Served:
    def __init__(self, listener: ProxyProtocolListener) -> None:
        self.listener = listener
        self.port: int = listener.extra(SocketAttribute.local_port)

    async def connect(self) -> SocketStream:
        return await anyio.connect_tcp("127.0.0.1", self.port)

    async def ask(self, data: bytes, *, eof: bool = True) -> bytes:
        """Send data; give the answer, or nothing when the connection is closed or reset."""
        answer = b""
        with anyio.fail_after(30):
            async with await self.connect() as client:
                with contextlib.suppress(anyio.BrokenResourceError, OSError):
                    if data:
                        await client.send(data)
                    if eof:
                        await client.send_eof()
                    async for part in client:
                        answer += part
        return answer


@contextlib.asynccontextmanager
async def serving(*arguments: Any, **options: Any) -> AsyncIterator[Served]:
    listener = ProxyProtocolListener(await anyio.create_tcp_listener(local_host="127.0.0.1"), *arguments, **options)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, tell_peer)
        yield Served(listener)
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("header", [V1, V2])
@pytest.mark.parametrize(
    ("policy", "with_header", "without_header"),
    [
        (Policy.REQUIRE, b"192.0.2.1|hello", b""),
        (Policy.USE, b"192.0.2.1|hello", b"127.0.0.1|hello"),
        (Policy.IGNORE, b"127.0.0.1|hello", b"127.0.0.1|hello"),
        (Policy.REJECT, b"", b"127.0.0.1|hello"),
        (Policy.SKIP, b"127.0.0.1|%shello", b"127.0.0.1|hello"),
    ],
)
async def test_each_policy(policy: Policy, with_header: bytes, without_header: bytes, header: bytes) -> None:
    async with serving(policy) as served:
        assert await served.ask(header + b"hello") == with_header.replace(b"%s", header)
        assert await served.ask(b"hello") == without_header


async def test_a_header_is_required_by_default() -> None:
    async with serving() as served:
        assert await served.ask(b"GET /") == b""
        assert await served.ask(V1 + b"hello") == b"192.0.2.1|hello"
        assert (served.listener.accepted, served.listener.refused) == (1, {"invalid": 1})


async def test_local_keeps_the_sockets_own_addresses() -> None:
    async with serving() as served:
        assert await served.ask(bytes.fromhex("0d0a0d0a000d0a515549540a20000000") + b"ping") == b"127.0.0.1|ping"
        assert await served.ask(b"PROXY UNKNOWN\r\nping") == b"127.0.0.1|ping"


async def test_policies_go_by_peer() -> None:
    policy = policy_by_network({"127.0.0.0/8": Policy.USE}, default=Policy.REJECT)
    async with serving(policy) as served:
        assert await served.ask(V1 + b"hello") == b"192.0.2.1|hello"
    async with serving(policy_by_network({"10.0.0.0/8": Policy.USE}, default=Policy.REJECT)) as served:
        assert await served.ask(V1 + b"hello") == b""
        assert served.listener.refused == {"rejected": 1}


async def test_every_refusal_is_counted_by_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "esockd_proxyproto")
    async with serving(timeout=0.2) as served:
        await served.ask(b"PROXY TCP4 1.2.3.256 ")
        await served.ask(b"PROXY TCP4")
        await served.ask(b"PROXY TCP4", eof=False)
        assert served.listener.refused == {"invalid": 1, "truncated": 1, "timeout": 1}
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "refused a connection (invalid)",
        "refused a connection (truncated)",
        "refused a connection (timeout)",
    ]


async def test_a_port_check_is_a_counter_and_no_log_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "esockd_proxyproto")
    async with serving() as served:
        assert await served.ask(b"") == b""
        assert served.listener.refused == {"truncated": 1}
    assert not caplog.records


async def test_a_stalled_peer_costs_only_itself() -> None:
    async with serving(timeout=60) as served, await served.connect() as stalled:
        await stalled.send(V1[:-1])
        assert await served.ask(V1 + b"hello") == b"192.0.2.1|hello"
        await stalled.send(V1[-1:] + b"late")
        await stalled.send_eof()
        with anyio.fail_after(30):
            assert await stalled.receive() == b"192.0.2.1|late"


@pytest.mark.parametrize("failure", [KeyError, TimeoutError, InvalidHeader("mine", 0, ""), None, "maybe"])
async def test_a_policy_that_fails_costs_one_connection_whatever_it_raises_or_returns(
    caplog: pytest.LogCaptureFixture, failure: Any
) -> None:
    caplog.set_level(logging.INFO, "esockd_proxyproto")
    peers: list[object] = []

    def policy(peer: object) -> Policy:
        peers.append(peer)
        if len(peers) > 1:
            return Policy.REQUIRE
        if failure in {None, "maybe"}:
            return failure  # type: ignore[no-any-return]
        raise failure

    async with serving(policy) as served:
        assert await served.ask(V1 + b"hello") == b""
        assert await served.ask(V1 + b"hello") == b"192.0.2.1|hello"
        assert served.listener.refused == {"policy": 1}
    assert caplog.records[0].exc_info


async def test_cancelling_the_listener_closes_connections_that_wait_for_a_header() -> None:
    async with serving(timeout=60) as served:
        client = await served.connect()
        await client.send(b"PROXY")
        assert await served.ask(V1 + b"hello") == b"192.0.2.1|hello"
    async with client:
        with anyio.fail_after(30), pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
            await client.receive()


async def test_the_listener_keeps_the_codecs_options() -> None:
    async with serving(tolerate=Tolerance.LF_LINE_END) as served:
        assert await served.ask(b"PROXY UNKNOWN\nhello") == b"127.0.0.1|hello"
    async with serving(max_length=216) as served:
        assert await served.ask(V2[:14] + b"\0\xd9") == b""


async def test_a_listener_with_wrong_options_is_never_made() -> None:
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        with pytest.raises(InvalidOption, match=r"^max_length is 1: "):
            ProxyProtocolListener(listener, max_length=1)
        with pytest.raises(InvalidOption, match=r"^policy is 'maybe': "):
            ProxyProtocolListener(listener, "maybe")  # type: ignore[arg-type]
        for timeout in (0, -1.0, float("nan"), None, True):
            with pytest.raises(InvalidOption, match=f"^timeout is {timeout!r}: it takes seconds, more than 0"):
                ProxyProtocolListener(listener, timeout=timeout)  # type: ignore[arg-type]


async def test_closing_the_wrapper_closes_the_listener() -> None:
    listener = ProxyProtocolListener(await anyio.create_tcp_listener(local_host="127.0.0.1"))
    port = listener.extra(SocketAttribute.local_port)
    await listener.aclose()
    with pytest.raises(OSError, match="connection"):
        await anyio.connect_tcp("127.0.0.1", port)


async def test_a_connection_that_is_reset_inside_its_header_is_broken_and_not_truncated() -> None:
    async with serving() as served:
        with socket.create_connection(("127.0.0.1", served.port)) as client:
            client.sendall(b"PROXY")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing resets
        with anyio.fail_after(30):
            while not served.listener.refused:  # noqa: ASYNC110 - a counter has no event
                await anyio.sleep(0.01)
        assert served.listener.refused == {"broken": 1}


class OneStream(Listener[ByteStream]):
    """Gives one stream, and goes on serving for as long as nothing raises."""

    def __init__(self, stream: ByteStream) -> None:
        self.stream = stream

    async def serve(self, handler: Callable[[ByteStream], Any], task_group: TaskGroup | None = None) -> None:
        await handler(self.stream)

    async def aclose(self) -> None:
        """Nothing is open."""


class DeadStream(ByteStream):
    """A socket whose peer is gone: it has a family and no remote address, and even closing fails."""

    def __init__(self, family: int | None) -> None:
        self.family = family
        self.is_closed = False

    @property
    def extra_attributes(self) -> dict[Any, Callable[[], Any]]:
        return {} if self.family is None else {SocketAttribute.family: lambda: self.family}

    async def receive(self, max_bytes: int = 65536) -> bytes:
        raise anyio.EndOfStream

    async def send(self, item: bytes) -> None:
        """Nobody listens."""

    async def send_eof(self) -> None:
        """Nobody listens."""

    async def aclose(self) -> None:
        self.is_closed = True
        raise anyio.BrokenResourceError


@pytest.mark.parametrize(
    ("family", "asked", "reason"),
    [
        (socket.AF_INET, [], "broken"),
        (socket.AF_INET6, [], "broken"),
        (socket.AF_UNIX, [""], "truncated"),
        (None, [""], "truncated"),
    ],
)
async def test_a_peer_that_is_gone_is_not_taken_for_a_unix_peer_and_cannot_stop_the_listener(
    family: int | None, asked: list[str], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "esockd_proxyproto")
    peers: list[object] = []

    def policy(peer: object) -> Policy:
        peers.append(peer)
        return Policy.REQUIRE

    stream = DeadStream(family)
    listener = ProxyProtocolListener(OneStream(stream), policy)
    await listener.serve(tell_peer)
    assert peers == asked
    assert stream.is_closed
    assert listener.refused == {reason: 1}
    assert not caplog.records


async def test_a_flood_of_bad_headers_is_not_a_flood_of_log_lines(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "esockd_proxyproto")
    now = 1.0
    monkeypatch.setattr("esockd_proxyproto.listener.anyio.current_time", lambda: now)
    listener = ProxyProtocolListener(OneStream(DeadStream(None)), lambda _: Policy("maybe"))
    for _ in range(100):
        await listener.serve(tell_peer)
    assert len(caplog.records) == 10
    now = 2.5
    await listener.serve(tell_peer)
    assert listener.refused == {"policy": 101}
    assert [record.message for record in caplog.records[10:]] == [
        "refused 90 more connections within a second",
        "refused a connection (policy): no policy for ''",
    ]
