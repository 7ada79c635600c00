"""Waiting for the tokens of a key: in turn, bounded, and without holding up other keys."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import anyio
import pytest

from esockd_ratelimit import (
    KeyedTokenBucket,
    QueueFull,
    TooManyKeys,
)
from esockd_ratelimit.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Hashable


async def call(buckets: KeyedTokenBucket, key: Hashable, served: list[Hashable], n: int = 1) -> None:
    await buckets.acquire(key, n)
    served.append(key)


@pytest.mark.anyio
async def test_waiters_of_one_key_are_served_in_turn_and_hold_up_no_other_key() -> None:
    clock = FakeClock()
    buckets = KeyedTokenBucket(1, 1, clock)
    served: list[Hashable] = []
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            await buckets.acquire("a")
            for _ in range(2):
                tasks.start_soon(call, buckets, "a", served)
            await anyio.wait_all_tasks_blocked()
            assert not buckets.try_acquire("a")
            assert buckets.wait_time("a") == 3.0
            await buckets.acquire("b")
            clock.advance(1)
            await anyio.wait_all_tasks_blocked()
            assert served == ["a"]
            clock.advance(1)
    assert served == ["a", "a"]
    assert buckets.wait_time("a") == 1.0


@pytest.mark.anyio
async def test_reconfigure_retimes_the_waiters_of_a_key() -> None:
    clock = FakeClock()
    buckets = KeyedTokenBucket(Fraction(1, 7), 1, clock)
    buckets.reconfigure(Fraction(1, 1000), 1)
    served: list[Hashable] = []
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            buckets.try_acquire("a")
            tasks.start_soon(call, buckets, "a", served)
            await anyio.wait_all_tasks_blocked()
            assert buckets.wait_time("a") == 2000.0
            buckets.reconfigure(2, 1)
            await anyio.wait_all_tasks_blocked()
            clock.advance(0.5)
            await anyio.wait_all_tasks_blocked()
    assert served == ["a"]
    assert buckets.wait_time("a") == 0.5


@pytest.mark.anyio
async def test_a_key_somebody_waits_for_is_not_forgotten() -> None:
    clock = FakeClock()
    buckets = KeyedTokenBucket(1, 2, clock, max_keys=1)
    served: list[Hashable] = []
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            await buckets.acquire("a", 2)
            tasks.start_soon(call, buckets, "a", served, 2)
            await anyio.wait_all_tasks_blocked()
            clock.advance(2)
            assert not buckets.try_acquire("b")
            await anyio.wait_all_tasks_blocked()
    assert served == ["a"]
    assert buckets.wait_time("a") == 1.0


@pytest.mark.anyio
async def test_a_cancelled_waiter_of_a_key_gives_back() -> None:
    buckets = KeyedTokenBucket(1, 2, FakeClock())
    buckets.try_acquire("a", 2)
    with anyio.move_on_after(0.01):
        await buckets.acquire("a", 2)
    assert buckets.wait_time("a") == 1.0


@pytest.mark.anyio
async def test_waiters_are_bounded_over_all_keys() -> None:
    clock = FakeClock()
    buckets = KeyedTokenBucket(1, 1, clock, max_waiters=1)
    served: list[Hashable] = []
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            for key in "ab":
                buckets.try_acquire(key)
            tasks.start_soon(call, buckets, "a", served)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(QueueFull):
                await buckets.acquire("b")
            clock.advance(1)
    assert served == ["a"]


@pytest.mark.anyio
async def test_a_new_key_waits_for_room_by_the_policy_of_the_table() -> None:
    clock = FakeClock()
    refusing = KeyedTokenBucket(1, 1, clock, max_keys=1)
    refusing.try_acquire("a")
    with pytest.raises(TooManyKeys, match="1 keys are being limited") as caught:
        await refusing.acquire("b")
    assert caught.value.max_keys == 1
    sharing = KeyedTokenBucket(1, 1, clock, max_keys=1, when_full="share")
    for key in "ab":
        sharing.try_acquire(key)
    served: list[Hashable] = []
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call, sharing, "c", served)
            await anyio.wait_all_tasks_blocked()
            assert served == []
            clock.advance(1)
    assert served == ["c"]
