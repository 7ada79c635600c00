"""A shared bucket while its server is stopped, hangs, or has been started again."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import pytest
from tests.ratelimit.redis_buckets import open_bucket, until

if TYPE_CHECKING:
    from tests.redis_server import RedisServer

pytestmark = pytest.mark.anyio


async def test_open_grants_everything_while_the_server_is_stopped(own_redis: RedisServer) -> None:
    async with open_bucket(own_redis, 0, 1, when_away="open", retry_interval=600) as bucket:
        assert await bucket.take()
        own_redis.stop()
        assert await bucket.take()
        assert "ConnectionError" in str(bucket.away)
        assert await bucket.take()
        await bucket.acquire()
        assert bucket.wait_time() == 0.0


async def test_closed_grants_nothing_while_the_server_is_stopped(own_redis: RedisServer) -> None:
    async with open_bucket(own_redis, 100, 100, retry_interval=600) as bucket:
        assert await bucket.take()
        own_redis.stop()
        assert not await bucket.take()
        assert not await bucket.take()
        assert 0 < bucket.wait_time() <= 600


async def test_closed_grants_nothing_in_the_moment_of_the_next_attempt(own_redis: RedisServer) -> None:
    own_redis.stop()
    async with open_bucket(own_redis, 100, 100, retry_interval=1e-9) as bucket:
        assert [await bucket.take() for _ in range(20)] == [False] * 20


async def test_local_limits_the_process_by_itself_while_the_server_is_stopped(own_redis: RedisServer) -> None:
    async with open_bucket(own_redis, 0, 2, when_away="local", retry_interval=600) as bucket:
        own_redis.stop()
        assert [await bucket.take() for _ in range(3)] == [True, True, False]
        assert bucket.wait_time() == math.inf
    async with open_bucket(own_redis, 100, 1, when_away="local", retry_interval=600) as bucket:
        for _ in range(3):
            await bucket.acquire()


@pytest.mark.parametrize(("when_away", "expected"), [("open", 5), ("closed", 0), ("local", 2)])
async def test_try_acquire_answers_by_choice_while_the_server_is_stopped(
    own_redis: RedisServer, when_away: str, expected: int
) -> None:
    own_redis.stop()
    async with open_bucket(own_redis, 0, 2, lease=2, when_away=when_away, retry_interval=600) as bucket, bucket:
        assert sum(bucket.try_acquire() for _ in range(5)) == expected


async def test_tokens_leased_before_the_server_went_away_are_still_good(own_redis: RedisServer) -> None:
    async with open_bucket(own_redis, 0, 5, lease=5, retry_interval=600) as bucket:
        assert await bucket.take()
        own_redis.stop()
        assert await bucket.take(4)
        assert not await bucket.take()


async def test_a_server_that_was_started_again_is_used_again(own_redis: RedisServer) -> None:
    async with open_bucket(own_redis, 0, 1, retry_interval=0.01) as bucket:
        assert await bucket.take()
        own_redis.stop()
        assert not await bucket.take()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bucket.acquire)
            while not bucket.waiters:
                await anyio.lowlevel.checkpoint()
            await anyio.to_thread.run_sync(own_redis.start)
        assert bucket.away is None
        assert not await bucket.take()


async def test_stock_is_kept_again_after_the_server_was_away(own_redis: RedisServer) -> None:
    async with open_bucket(own_redis, 0, 3, lease=3, retry_interval=0.01) as bucket, bucket:
        assert bucket.try_acquire(3)
        own_redis.stop()
        await until(lambda: bucket.away is not None)
        assert not bucket.try_acquire()
        await anyio.to_thread.run_sync(own_redis.start)
        await until(lambda: bucket.try_acquire(3))
        assert bucket.away is None


async def test_a_server_that_hangs_costs_one_timeout_and_is_used_again_when_it_goes_on(own_redis: RedisServer) -> None:
    async with open_bucket(own_redis, 0, 10, when_away="open", timeout=0.5, retry_interval=0.5) as bucket:
        assert await bucket.take(9)
        own_redis.pause()
        assert await bucket.take(10)
        assert "Timeout" in str(bucket.away)
        for _ in range(100):
            assert await bucket.take(10)
        own_redis.resume()
        while bucket.away:
            await anyio.sleep(0.01)
            await bucket.take(10)
        assert not await bucket.take(10)


async def test_the_event_loop_runs_on_while_the_server_hangs(own_redis: RedisServer) -> None:
    async with open_bucket(own_redis, 0, 10, timeout=0.5) as bucket:
        assert await bucket.take()
        own_redis.pause()
        turns = 0
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bucket.take)
            while not bucket.away:
                await anyio.sleep(0.001)
                turns += 1
        own_redis.resume()
        assert turns > 1


async def test_a_caller_cancelled_while_the_server_hangs_ends_within_the_timeout(
    own_redis: RedisServer,
) -> None:
    async with open_bucket(own_redis, 0, 10, timeout=0.5) as bucket:
        assert await bucket.take()
        own_redis.pause()
        with anyio.move_on_after(0.01):
            await bucket.acquire()
        own_redis.resume()
        assert bucket.waiters == 0
