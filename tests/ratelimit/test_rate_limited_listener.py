"""A limit around any AnyIO listener, seen by real clients."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.abc import SocketAttribute, SocketListener, SocketStream

from esockd_ratelimit import CompositeLimiter, InvalidRateError, KeyedTokenBucket, TokenBucket
from esockd_ratelimit.listener import RateLimitedListener, peer_host
from esockd_ratelimit.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.anyio


async def echo(stream: SocketStream) -> None:
    async with stream:
        async for data in stream:
            await stream.send(data)


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[tuple[RateLimitedListener[SocketStream], int]]:
    inner = await anyio.create_tcp_listener(local_host="127.0.0.1")
    listener = RateLimitedListener(inner, **options)
    port = listener.extra(SocketAttribute.local_port)
    with anyio.fail_after(20):
        async with listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, echo)
            yield listener, port
            tasks.cancel_scope.cancel()


async def is_served(port: int) -> bool:
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        try:
            await stream.send(b"ping")
            return await stream.receive() == b"ping"
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return False


async def until_somebody_waits(bucket: TokenBucket) -> None:
    while not bucket.waiters:  # noqa: ASYNC110 - the bucket tells nobody; the test's deadline bounds it
        await anyio.sleep(0.001)


async def test_connections_above_the_limit_are_closed_at_once() -> None:
    async with serving(limiter=TokenBucket(0, 2)) as (listener, port):
        assert [await is_served(port) for _ in range(4)] == [True, True, False, False]
        assert (listener.accepted, listener.closed_rate_limited) == (2, 2)


async def test_each_source_has_a_limit_of_its_own() -> None:
    sources = KeyedTokenBucket(0, 1)
    async with serving(source_limiter=sources) as (_, port):
        assert [await is_served(port) for _ in range(2)] == [True, False]
    assert not sources.try_acquire("127.0.0.1")


async def test_a_refused_source_spends_nothing_of_the_common_limit() -> None:
    common = TokenBucket(0, 5)
    async with serving(limiter=common, source_limiter=KeyedTokenBucket(0, 1)) as (_, port):
        assert [await is_served(port) for _ in range(3)] == [True, False, False]
    assert common.peek() == 4


@pytest.mark.parametrize("when_limited", ["close", "wait"])
async def test_a_composite_is_asked_with_the_source(when_limited: str) -> None:
    sources = KeyedTokenBucket(0, 3)
    composite = CompositeLimiter({"all": TokenBucket(0, 5), "source": sources})
    async with serving(limiter=composite, when_limited=when_limited) as (_, port):
        assert await is_served(port)
    assert sources.try_acquire("127.0.0.1", 2)
    assert not sources.try_acquire("127.0.0.1")


async def test_connections_can_wait_for_their_turn() -> None:
    clock = FakeClock()
    bucket = TokenBucket(1, 1, clock)
    async with serving(limiter=bucket, when_limited="wait") as (_, port):
        assert await is_served(port)
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send(b"ping")
            await until_somebody_waits(bucket)
            clock.advance(1)
            assert await stream.receive() == b"ping"


async def test_a_source_can_wait_where_there_is_no_common_limit() -> None:
    async with serving(source_limiter=KeyedTokenBucket(0, 1, max_waiters=0), when_limited="wait") as (_, port):
        assert [await is_served(port) for _ in range(2)] == [True, False]


async def test_connections_that_find_the_queue_full_are_closed() -> None:
    limits = {"limiter": TokenBucket(0, 1, max_waiters=0), "source_limiter": KeyedTokenBucket(0, 2)}
    async with serving(**limits, when_limited="wait") as (listener, port):
        assert [await is_served(port) for _ in range(2)] == [True, False]
        assert listener.closed_rate_limited == 1


async def test_a_connection_that_waits_is_closed_with_the_server() -> None:
    bucket = TokenBucket(0, 1)
    bucket.try_acquire()
    async with serving(limiter=bucket, when_limited="wait") as (_, port):
        stream = await anyio.connect_tcp("127.0.0.1", port)
        await until_somebody_waits(bucket)
    async with stream:
        with anyio.fail_after(10), pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
            await stream.receive()
    assert bucket.waiters == 0


async def test_peers_without_a_host_have_no_source_limit(tmp_path: Path) -> None:
    async def greet(stream: SocketStream) -> None:
        async with stream:
            await stream.send(b"hello")

    inner = await anyio.create_unix_listener(tmp_path / "socket")
    listener = RateLimitedListener(inner, source_limiter=KeyedTokenBucket(0, 1))
    with anyio.fail_after(20):
        async with listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, greet)
            for _ in range(3):
                async with await anyio.connect_unix(tmp_path / "socket") as stream:
                    assert [data async for data in stream] == [b"hello"]
            tasks.cancel_scope.cancel()


async def test_a_listener_wraps_another_wrapper() -> None:
    inner = await SocketListener.from_socket(_listening_socket())
    listener = RateLimitedListener(RateLimitedListener(inner, TokenBucket(0, 2)), TokenBucket(0, 1))
    with anyio.fail_after(20):
        async with listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, echo)
            port = listener.extra(SocketAttribute.local_port)
            assert [await is_served(port) for _ in range(2)] == [True, False]
            tasks.cancel_scope.cancel()


def _listening_socket() -> socket.socket:
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    return listening


async def test_the_peers_host_is_the_source() -> None:
    hosts = []

    async def note(stream: SocketStream) -> None:
        async with stream:
            hosts.append(peer_host(stream))

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as inner:
        listener = RateLimitedListener(inner, TokenBucket(1))
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(listener.serve, note)
                async with await anyio.connect_tcp("127.0.0.1", inner.extra(SocketAttribute.local_port)) as stream:
                    with pytest.raises(anyio.EndOfStream):
                        await stream.receive()
                tasks.cancel_scope.cancel()
    assert hosts == ["127.0.0.1"]


async def test_options_that_make_no_sense_are_refused() -> None:
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as inner:
        with pytest.raises(InvalidRateError, match="needs a limiter"):
            RateLimitedListener(inner)
        with pytest.raises(InvalidRateError, match="when_limited"):
            RateLimitedListener(inner, TokenBucket(1), when_limited="drop")  # type: ignore[arg-type]
