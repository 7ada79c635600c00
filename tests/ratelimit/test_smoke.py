"""A first look at the buckets; the full specification follows."""

from __future__ import annotations

import anyio
import pytest

from esockd_ratelimit import KeyedLimiter, KeyedTokenBucket, Limiter, TokenBucket
from esockd_ratelimit.testing import FakeClock

pytestmark = pytest.mark.anyio


async def test_waiters_are_served_in_the_order_in_which_they_came() -> None:
    clock = FakeClock()
    bucket = TokenBucket(10, 5, clock)
    assert bucket.try_acquire(5)
    assert not bucket.try_acquire()
    served: list[tuple[int, int]] = []

    async def waiter(number: int) -> None:
        await bucket.acquire()
        served.append((number, clock.now_ns))

    async with anyio.create_task_group() as tasks:
        for number in range(7):
            tasks.start_soon(waiter, number)
            await anyio.wait_all_tasks_blocked()
        assert bucket.waiters == 7
        for _ in range(7):
            clock.advance(0.1)
            await anyio.wait_all_tasks_blocked()
    assert served == [(number, (number + 1) * 10**8) for number in range(7)]


async def test_a_limited_key_is_not_evicted_by_new_ones() -> None:
    clock = FakeClock()
    buckets = KeyedTokenBucket(1, 2, clock, max_keys=2)
    assert isinstance(buckets, KeyedLimiter)
    assert isinstance(TokenBucket(1), Limiter)
    assert buckets.try_acquire("192.0.2.1", 2)
    assert buckets.try_acquire("2001:db8::1")
    assert buckets.try_acquire("2001:db8::2")
    assert not buckets.try_acquire("2001:db8::3")
    assert not buckets.try_acquire("192.0.2.2")
    clock.advance(2)
    assert buckets.try_acquire("192.0.2.2")
