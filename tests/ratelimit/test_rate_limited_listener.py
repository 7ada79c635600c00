"""A limit around any AnyIO listener, seen by real clients."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio import TypedAttributeProvider
from anyio.abc import AsyncResource, Listener, SocketAttribute, SocketListener, SocketStream

from esockd_ratelimit import CompositeLimiter, InvalidOption, InvalidRate, KeyedTokenBucket, TokenBucket
from esockd_ratelimit.listener import RateLimitedListener, peer_host
from esockd_ratelimit.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from anyio.abc import TaskGroup

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
        with anyio.fail_after(30), pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
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
        with pytest.raises(InvalidOption, match="needs a limiter"):
            RateLimitedListener(inner)
        with pytest.raises(InvalidOption, match=r"^when_limited is 'drop': it takes 'close' or 'wait'"):
            RateLimitedListener(inner, TokenBucket(1), when_limited="drop")  # type: ignore[arg-type]
        with pytest.raises(InvalidOption, match=r"^source_limiter is .*: it takes a limiter or a rate"):
            RateLimitedListener(inner, source_limiter=object())  # type: ignore[arg-type]
        with pytest.raises(InvalidRate, match=r"^rate is 'fast'"):
            RateLimitedListener(inner, "fast")


async def test_rates_stand_for_buckets() -> None:
    async with serving(limiter="0/s burst 2", source_limiter=3) as (listener, port):
        assert isinstance(listener.limiter, TokenBucket)
        assert isinstance(listener.source_limiter, KeyedTokenBucket)
        assert [await is_served(port) for _ in range(3)] == [True, True, False]


@pytest.mark.parametrize("when_limited", ["close", "wait"])
async def test_a_limiter_that_fails_costs_one_connection_and_not_the_listener(
    when_limited: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        def try_acquire(self, n: int = 1) -> bool:
            raise ZeroDivisionError

        def wait_time(self, n: int = 1) -> float:
            raise ZeroDivisionError

        async def acquire(self, n: int = 1) -> None:
            raise ZeroDivisionError

    async with serving(limiter=Broken(), when_limited=when_limited) as (listener, port):
        for _ in range(9):
            assert not await is_served(port)
        listener.limiter = TokenBucket(1)
        assert await is_served(port)
        assert (listener.accepted, listener.closed_rate_limited, listener.closed_other_reasons) == (1, 0, 9)
    logged = [record for record in caplog.records if record.name == "esockd_ratelimit"]
    assert len(logged) == 4  # of the first, second, fourth and eighth
    assert all(record.exc_info for record in logged)


class DeadStream(AsyncResource, TypedAttributeProvider):
    """A TCP connection whose client is gone: it has a family and no remote address, and even closing fails."""

    def __init__(self) -> None:
        self.is_closed = False

    @property
    def extra_attributes(self) -> dict[Any, Callable[[], Any]]:
        return {SocketAttribute.family: lambda: socket.AF_INET}

    async def aclose(self) -> None:
        self.is_closed = True
        raise anyio.BrokenResourceError


class OneStream(Listener[DeadStream]):
    """Gives one stream, and raises what its handler raises."""

    def __init__(self, stream: DeadStream) -> None:
        self.stream = stream

    async def serve(self, handler: Callable[[DeadStream], Any], task_group: TaskGroup | None = None) -> None:
        await handler(self.stream)

    async def aclose(self) -> None:
        """Nothing is open."""


async def test_a_client_that_is_gone_spends_no_token_and_cannot_stop_the_listener() -> None:
    stream, bucket = DeadStream(), TokenBucket(0, 1)
    listener = RateLimitedListener(OneStream(stream), bucket)
    await listener.serve(lambda _: pytest.fail("nobody is there to be served"))
    assert stream.is_closed
    assert bucket.peek() == 1
    assert (listener.accepted, listener.closed_early) == (0, 1)
