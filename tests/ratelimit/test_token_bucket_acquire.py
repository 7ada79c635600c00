"""Waiting for tokens: in turn, without overtaking, and cancelled callers give back."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import pytest

from esockd_ratelimit import BurstExceeded, InvalidTokens, QueueFull, TokenBucket
from esockd_ratelimit.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio


class Waiters:
    """Starts callers of `acquire` one after the other and notes who was served when, in seconds."""

    def __init__(self, bucket: TokenBucket, clock: FakeClock) -> None:
        self.bucket, self.clock = bucket, clock
        self.served: list[tuple[str, float]] = []
        self.scopes: dict[str, anyio.CancelScope] = {}

    async def _wait(self, name: str, n: int) -> None:
        with anyio.CancelScope() as self.scopes[name]:
            await self.bucket.acquire(n)
            self.served.append((name, self.clock.now_ns / 1e9))

    async def start(self, name: str, n: int = 1) -> None:
        self.tasks.start_soon(self._wait, name, n)
        await anyio.wait_all_tasks_blocked()

    async def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await anyio.wait_all_tasks_blocked()

    async def cancel(self, name: str) -> None:
        self.scopes[name].cancel()
        await anyio.wait_all_tasks_blocked()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        with anyio.fail_after(30):
            async with anyio.create_task_group() as self.tasks:
                yield


def waiting(rate: float, burst: float, *, spend: int, max_waiters: int | None = None) -> Waiters:
    clock = FakeClock()
    bucket = TokenBucket(rate, burst, clock, max_waiters=max_waiters)
    bucket.try_acquire(spend)
    return Waiters(bucket, clock)


async def test_tokens_that_are_there_cost_no_trip_through_the_event_loop() -> None:
    bucket = TokenBucket(10, clock=FakeClock())
    others_ran = False

    async def other() -> None:
        nonlocal others_ran
        others_ran = True

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(other)
        await bucket.acquire(10)
        assert not others_ran
    assert bucket.peek() == 0


async def test_a_caller_who_is_cancelled_already_takes_nothing() -> None:
    bucket = TokenBucket(10, clock=FakeClock())
    with anyio.CancelScope() as scope:
        scope.cancel()
        await bucket.acquire()
    assert scope.cancelled_caught
    assert bucket.peek() == 10


async def test_waiters_are_served_in_turn_each_at_its_exact_moment() -> None:
    waiters = waiting(10, 5, spend=5)
    async with waiters.running():
        for name in "abcd":
            await waiters.start(name)
        assert waiters.bucket.waiters == 4
        for _ in range(4):
            await waiters.advance(0.1)
    assert waiters.served == [("a", 0.1), ("b", 0.2), ("c", 0.3), ("d", 0.4)]
    assert waiters.bucket.waiters == 0


async def test_a_small_request_does_not_overtake_a_large_one() -> None:
    waiters = waiting(1, 5, spend=3)
    async with waiters.running():
        await waiters.start("large", 5)
        await waiters.start("small", 1)
        assert not waiters.bucket.try_acquire()
        await waiters.advance(2)
        assert waiters.served == []
        await waiters.advance(1)
        await waiters.advance(1)
    assert waiters.served == [("large", 3.0), ("small", 4.0)]


async def test_all_who_are_due_are_served_at_once() -> None:
    waiters = waiting(1, 5, spend=5)
    async with waiters.running():
        for name in "abc":
            await waiters.start(name)
        await waiters.advance(10)
    assert sorted(waiters.served) == [("a", 10.0), ("b", 10.0), ("c", 10.0)]
    assert waiters.bucket.peek() == 5


async def test_those_behind_a_cancelled_first_waiter_move_up() -> None:
    waiters = waiting(1, 10, spend=10)
    async with waiters.running():
        await waiters.start("large", 8)
        await waiters.start("small", 1)
        await waiters.cancel("large")
        await waiters.advance(1)
        assert waiters.served == [("small", 1.0)]


async def test_those_behind_a_cancelled_waiter_in_the_middle_move_up() -> None:
    waiters = waiting(1, 10, spend=10)
    async with waiters.running():
        await waiters.start("first")
        await waiters.start("large", 8)
        await waiters.start("last")
        await waiters.cancel("large")
        await waiters.advance(1)
        await waiters.advance(1)
        assert waiters.served == [("first", 1.0), ("last", 2.0)]


async def test_the_only_waiter_cancelled_leaves_no_debt() -> None:
    waiters = waiting(1, 2, spend=2)
    async with waiters.running():
        await waiters.start("only", 2)
        await waiters.advance(1)
        await waiters.cancel("only")
        assert waiters.bucket.peek() == 1
        assert waiters.bucket.waiters == 0


async def test_a_waiter_cancelled_in_the_moment_it_is_served_gives_back() -> None:
    waiters = waiting(1, 1, spend=1)
    async with waiters.running():
        await waiters.start("unlucky")
        waiters.clock.advance(1)
        waiters.scopes["unlucky"].cancel()
        await anyio.wait_all_tasks_blocked()
        assert waiters.bucket.peek() == 1 - len(waiters.served)


async def test_waiters_queue_behind_reservations_and_move_up_when_one_is_cancelled() -> None:
    waiters = waiting(1, 10, spend=10)
    reservation = waiters.bucket.reserve(5)
    async with waiters.running():
        await waiters.start("waiter")
        await waiters.advance(1)
        reservation.cancel()
        await anyio.wait_all_tasks_blocked()
        assert waiters.served == [("waiter", 1.0)]


async def test_reservations_queue_behind_waiters() -> None:
    waiters = waiting(1, 10, spend=10)
    async with waiters.running():
        await waiters.start("waiter", 3)
        reservation = waiters.bucket.reserve(2)
        assert reservation.wait_time() == 5.0
        await waiters.cancel("waiter")
        assert reservation.wait_time() == 2.0


async def test_a_higher_rate_wakes_the_first_waiter_earlier() -> None:
    waiters = waiting(1, 1, spend=1)
    async with waiters.running():
        await waiters.start("a")
        await waiters.start("b")
        waiters.bucket.reconfigure(10, 1)
        await anyio.wait_all_tasks_blocked()
        await waiters.advance(0.1)
        await waiters.advance(0.1)
    assert waiters.served == [("a", 0.1), ("b", 0.2)]


async def test_at_rate_0_waiters_wait_until_the_bucket_is_reconfigured() -> None:
    waiters = waiting(0, 1, spend=1)
    async with waiters.running():
        await waiters.start("a")
        await waiters.advance(10**6)
        assert waiters.served == []
        waiters.bucket.reconfigure(1)
        await anyio.wait_all_tasks_blocked()
        await waiters.advance(1)
    assert waiters.served == [("a", 1000001.0)]


async def test_the_queue_is_bounded() -> None:
    waiters = waiting(1, 5, spend=5, max_waiters=2)
    async with waiters.running():
        await waiters.start("a")
        await waiters.start("b")
        with pytest.raises(QueueFull, match="2 callers already wait") as caught:
            await waiters.bucket.acquire()
        assert caught.value.max_waiters == 2
        assert waiters.bucket.wait_time() == 3.0
        await waiters.advance(2)
    assert [name for name, _ in waiters.served] == ["a", "b"]


async def test_requests_that_can_never_be_granted_do_not_wait() -> None:
    bucket = TokenBucket(1, 5, FakeClock())
    with pytest.raises(BurstExceeded):
        await bucket.acquire(6)
    with pytest.raises(InvalidTokens):
        await bucket.acquire(-1)


async def test_on_a_real_clock_waiters_are_never_served_early() -> None:
    bucket = TokenBucket(1000, burst=1)
    started_ns = time.monotonic_ns()
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            for _ in range(51):
                tasks.start_soon(bucket.acquire)
    assert time.monotonic_ns() - started_ns >= 50 * 1_000_000


async def test_a_clock_without_alarms_is_asked_again_until_the_moment_comes() -> None:
    started_ns = time.monotonic_ns()

    def slow_clock() -> int:
        return (time.monotonic_ns() - started_ns) // 10

    bucket = TokenBucket(1000, burst=1, clock=slow_clock)
    with anyio.fail_after(30):
        await bucket.acquire()
        await bucket.acquire()
    assert slow_clock() >= 1_000_000


async def test_a_thousand_waiters_cancelled_together_leave_nothing_behind() -> None:
    waiters = waiting(1, 1, spend=1)
    async with waiters.running():
        for number in range(1000):
            waiters.tasks.start_soon(waiters.bucket.acquire, 1, name=f"waiter {number}")
        await anyio.wait_all_tasks_blocked()
        assert waiters.bucket.waiters == 1000
        waiters.tasks.cancel_scope.cancel()
    assert waiters.bucket.waiters == 0
    assert waiters.bucket.wait_time() == 1.0
