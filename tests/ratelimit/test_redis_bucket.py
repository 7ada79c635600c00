"""A bucket shared through a server, by several holders and by several processes."""

from __future__ import annotations

import math
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
import redis
from tests.ratelimit.redis_buckets import fresh_name, open_bucket, script_runs, server_time_us, until

from esockd_ratelimit import (
    BurstExceeded,
    InvalidOption,
    InvalidRate,
    InvalidTokens,
    Limiter,
    QueueFull,
    Rate,
)
from esockd_ratelimit.redis import NotEntered, RedisTokenBucket

if TYPE_CHECKING:
    from tests.redis_server import RedisServer

pytestmark = pytest.mark.anyio


async def test_all_who_share_a_bucket_together_take_its_burst(shared_redis: RedisServer) -> None:
    name = fresh_name()
    async with open_bucket(shared_redis, 0, 3, name=name) as one, open_bucket(shared_redis, 0, 3, name=name) as other:
        answers = [await one.take(), await other.take(), await one.take(), await other.take(), await one.take()]
    assert answers == [True, True, True, False, False]


async def test_buckets_of_other_names_are_other_buckets(shared_redis: RedisServer) -> None:
    async with open_bucket(shared_redis, 0, 1) as one, open_bucket(shared_redis, 0, 1) as other:
        assert await one.take()
        assert await other.take()


async def test_acquire_is_never_early_by_the_servers_clock(shared_redis: RedisServer) -> None:
    async with open_bucket(shared_redis, 50, 1) as bucket:
        started_us = server_time_us(shared_redis)
        for _ in range(4):
            await bucket.acquire()
        assert server_time_us(shared_redis) - started_us >= 3 * 20_000


async def test_wait_time_is_what_the_server_said_last(shared_redis: RedisServer) -> None:
    async with open_bucket(shared_redis, 1 / 64, 1) as bucket:
        assert bucket.wait_time() == 0.0
        assert await bucket.take()
        assert not await bucket.take()
        assert 0 < bucket.wait_time() <= 64
    async with open_bucket(shared_redis, 0, 1) as bucket:
        assert await bucket.take()
        assert not await bucket.take()
        assert bucket.wait_time() == math.inf


async def test_callers_of_one_process_are_served_in_turn(shared_redis: RedisServer) -> None:
    served: list[int] = []
    async with open_bucket(shared_redis, 100, 3) as bucket:

        async def call(number: int, n: int) -> None:
            await bucket.acquire(n)
            served.append(number)

        await bucket.acquire(3)
        async with anyio.create_task_group() as tasks:
            for number, n in enumerate([3, 1, 2, 1]):
                tasks.start_soon(call, number, n)
                while bucket.waiters <= number - len(served):
                    await anyio.lowlevel.checkpoint()
    assert served == [0, 1, 2, 3]


async def test_take_neither_overtakes_nor_waits_for_a_caller_who_waits(shared_redis: RedisServer) -> None:
    async with open_bucket(shared_redis, 0.01, 5) as bucket, anyio.create_task_group() as tasks:
        assert await bucket.take(4)
        tasks.start_soon(bucket.acquire, 5)
        await until(lambda: bucket.wait_time(5) > 0)
        assert not await bucket.take()
        assert await bucket.take(0)
        tasks.cancel_scope.cancel()


async def test_a_cancelled_caller_further_back_lets_nobody_overtake_the_first(shared_redis: RedisServer) -> None:
    async with open_bucket(shared_redis, 0.01, 5) as bucket, anyio.create_task_group() as tasks:
        assert await bucket.take(4)
        tasks.start_soon(bucket.acquire, 5)
        await until(lambda: bucket.wait_time(5) > 0)
        with anyio.move_on_after(0.01):
            await bucket.acquire()
        assert not await bucket.take()
        tasks.cancel_scope.cancel()


async def test_concurrent_callers_share_what_one_trip_brings(shared_redis: RedisServer) -> None:
    answers: list[bool] = []
    async with open_bucket(shared_redis, 0, 10, lease=10) as bucket, open_bucket(shared_redis, 0, 1) as other:
        await other.take()  # the server knows the script from now on
        runs = script_runs(shared_redis)

        async def call() -> None:
            answers.append(await bucket.take())

        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(call)
        assert answers == [True] * 10
        assert script_runs(shared_redis) == runs + 1


async def test_a_cancelled_caller_takes_nothing(shared_redis: RedisServer) -> None:
    name = fresh_name()
    async with open_bucket(shared_redis, 0.01, 2, name=name) as bucket:
        assert await bucket.take()
        with anyio.move_on_after(0.05) as scope:
            await bucket.acquire(2)
        assert scope.cancelled_caught
        assert bucket.waiters == 0
        assert await bucket.take()


async def test_the_queue_is_bounded(shared_redis: RedisServer) -> None:
    async with open_bucket(shared_redis, 0, 1, max_waiters=0) as bucket:
        with pytest.raises(QueueFull):
            await bucket.acquire()


async def test_requests_that_make_no_sense_are_refused_by_their_own_errors(shared_redis: RedisServer) -> None:
    async with open_bucket(shared_redis, 0, 3, lease=2) as bucket, bucket:
        for error, n in ((BurstExceeded, 4), (InvalidTokens, -1)):
            with pytest.raises(error):
                await bucket.take(n)
            with pytest.raises(error):
                await bucket.acquire(n)
            with pytest.raises(error):
                bucket.wait_time(n)
            with pytest.raises(error):
                bucket.try_acquire(n)
        with pytest.raises(BurstExceeded, match=r"^n is 3: this bucket never holds more than its burst of 2"):
            bucket.try_acquire(3)


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("lease", 0, "it takes a whole number, 1 or more"),
        ("lease", 6, "it takes at most the burst, which is 5"),
        ("when_away", "panic", "it takes 'open', 'closed' or 'local'"),
        ("timeout", 0, "it takes seconds, more than 0"),
        ("retry_interval", -1.0, "it takes seconds, more than 0"),
        ("max_waiters", -1, "it takes a whole number, 0 or more, or None for no bound"),
        ("rate", -1, "it takes a number, 0 or more"),
    ],
)
def test_options_out_of_range_are_refused(option: str, value: Any, reason: str) -> None:
    with pytest.raises(InvalidRate if option == "rate" else InvalidOption) as raised:
        RedisTokenBucket("redis://localhost", "name", **{"rate": 1, "burst": 5, option: value})
    assert (raised.value.option, raised.value.value, raised.value.reason) == (option, value, reason)


async def test_a_lease_saves_trips_and_holds_at_most_one_token_less_than_the_lease(shared_redis: RedisServer) -> None:
    async with open_bucket(shared_redis, 0, 100, lease=10) as bucket:
        assert await bucket.take()
        runs = script_runs(shared_redis)
        assert bucket.leased == 9
        for _ in range(4):
            assert await bucket.take()
            await bucket.acquire()
        assert await bucket.take()
        assert script_runs(shared_redis) == runs
        assert await bucket.take(25)
        assert bucket.leased == 9
        assert bucket.rate == Rate(0, 100)


async def test_what_is_left_of_a_lease_is_given_back_at_the_end(shared_redis: RedisServer) -> None:
    name = fresh_name()
    async with open_bucket(shared_redis, 0, 10, name=name, lease=10) as bucket:
        assert await bucket.take(3)
    async with open_bucket(shared_redis, 0, 10, name=name) as bucket:
        assert await bucket.take(7)
        assert not await bucket.take()


async def test_try_acquire_spends_stock_that_is_kept_in_the_background(shared_redis: RedisServer) -> None:
    async with open_bucket(shared_redis, 0, 50, lease=10) as bucket:
        assert isinstance(bucket, Limiter)
        with pytest.raises(NotEntered, match="async with"):
            bucket.try_acquire()
        taken = 0
        async with bucket:
            assert bucket.leased == 10
            while taken < 50:
                taken += bucket.try_acquire()
                await anyio.lowlevel.checkpoint()
            assert not bucket.try_acquire()
        with pytest.raises(NotEntered, match="async with"):
            bucket.try_acquire()


async def test_stock_is_filled_up_as_tokens_come(shared_redis: RedisServer) -> None:
    async with open_bucket(shared_redis, 500, 2, lease=2) as bucket, bucket:
        taken = 0
        while taken < 10:
            taken += bucket.try_acquire()
            await anyio.sleep(0.001)


async def test_take_uses_what_try_acquire_left(shared_redis: RedisServer) -> None:
    async with open_bucket(shared_redis, 0, 5, lease=5) as bucket, bucket:
        assert bucket.try_acquire(3)
        assert await bucket.take(2)
        assert not await bucket.take()


async def test_a_client_of_ones_own_stays_open(shared_redis: RedisServer) -> None:
    with redis.Redis.from_url(shared_redis.url) as client:
        bucket = RedisTokenBucket(client, fresh_name(), 0, 1)
        assert await bucket.take()
        await bucket.aclose()
        assert client.ping()


PROCESS = """
import sys
import anyio
from esockd_ratelimit.redis import RedisTokenBucket

async def main() -> None:
    url, name, rate, burst, lease, calls = sys.argv[2:]
    bucket = RedisTokenBucket(url, name, int(rate), int(burst), lease=int(lease), timeout=20)
    granted = 0
    for _ in range(int(calls)):
        granted += await bucket.take()
    print(granted, bucket.leased)

if sys.argv[1] == "trio":
    anyio.run(main, backend="trio")
else:
    anyio.run(main, backend_options={"use_uvloop": sys.argv[1] == "uvloop"})
"""


def run_processes(server: RedisServer, *arguments: object) -> list[tuple[int, int]]:
    """What each of three processes, one a backend, was granted in so many calls, and what is left of its lease."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, backend, server.url, *map(str, arguments)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for backend in ("asyncio", "uvloop", "trio")
    ]
    outputs = [process.communicate(timeout=50)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    return [(int(granted), int(leased)) for granted, leased in outputs]


@pytest.mark.parametrize("lease", [1, 7])
def test_several_processes_together_take_exactly_the_allowance(shared_redis: RedisServer, lease: int) -> None:
    results = run_processes(shared_redis, fresh_name(), 0, 200, lease, 300)
    assert sum(granted for granted, _ in results) == 200
    assert [leased for _, leased in results] == [0, 0, 0]


@pytest.mark.parametrize("lease", [1, 10])
def test_several_processes_stay_within_rate_and_burst_and_their_leases(shared_redis: RedisServer, lease: int) -> None:
    name = fresh_name()
    started_us = server_time_us(shared_redis)
    results = run_processes(shared_redis, name, 100, 50, lease, 400)
    elapsed_s = (server_time_us(shared_redis) - started_us) / 1e6
    assert 50 <= sum(granted + leased for granted, leased in results) <= 50 + 100 * elapsed_s
    assert all(leased < lease for _, leased in results)


def test_the_example_of_the_readme_runs_as_a_program(shared_redis: RedisServer) -> None:
    page = Path(__file__).parents[2] / "packages" / "esockd-ratelimit" / "README.md"
    after_skip = page.read_text().partition("<!-- skip: next -->\n```python\n")[2]
    program = after_skip.partition("```")[0].replace("redis://localhost", shared_redis.url)
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=True)
    assert result.stdout.split() == ["True", "True", "True"]


def test_a_bucket_that_is_never_used_opens_no_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        bucket = RedisTokenBucket(f"redis://127.0.0.1:{server.getsockname()[1]}", "name", 1)
        assert bucket.leased == 0
        assert bucket.away is None
        with pytest.raises(BlockingIOError):  # nobody is in the queue
            server.accept()
