"""The clock for users' tests."""

from __future__ import annotations

import anyio
import pytest

from esockd_ratelimit import TokenBucket
from esockd_ratelimit.testing import FakeClock


def test_the_clock_moves_only_when_told_to() -> None:
    clock = FakeClock(5)
    assert (clock(), clock()) == (5, 5)
    clock.advance(0.1)
    assert clock() == 100_000_005


def test_an_alarm_rings_once_its_time_has_come() -> None:
    clock, rung = FakeClock(), []
    with clock.wake_at(10, lambda: rung.append("late")), clock.wake_at(5, lambda: rung.append("early")):
        clock.advance(4e-9)
        assert rung == []
        clock.advance(100)
    assert rung == ["early", "late"]


def test_an_alarm_that_was_left_does_not_ring() -> None:
    clock, rung = FakeClock(), []
    with clock.wake_at(10, lambda: rung.append("never")):
        pass
    clock.advance(1)
    assert rung == []


def test_an_alarm_for_the_past_rings_at_once() -> None:
    clock, rung = FakeClock(10), []
    with clock.wake_at(10, lambda: rung.append("now")):
        assert rung == ["now"]


@pytest.mark.anyio
async def test_advancing_the_clock_serves_a_waiter_without_sleeping() -> None:
    clock = FakeClock()
    bucket = TokenBucket(1, clock=clock)
    bucket.try_acquire()
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bucket.acquire)
            await anyio.wait_all_tasks_blocked()
            clock.advance(3600)
    assert bucket.peek() == 1
