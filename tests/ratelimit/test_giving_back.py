"""What a caller gives back that several limits kept waiting: never more than it took, and where it took it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import anyio
import pytest
from tests.patience import PATIENCE_S

from esockd_ratelimit import CompositeLimiter, KeyedTokenBucket, TokenBucket
from esockd_ratelimit.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio


class Held:
    """A caller that holds a token of its source while it waits for a limit that never grants it one."""

    def __init__(self, sources: KeyedTokenBucket, clock: FakeClock) -> None:
        never = TokenBucket(0, 1, clock)
        never.try_acquire()
        self.limits = CompositeLimiter({"never": never, "source": sources})
        self.scope = anyio.CancelScope()

    async def _call(self, key: str) -> None:
        with self.scope:
            await self.limits.acquire(key=key)

    @asynccontextmanager
    async def by(self, key: str) -> AsyncIterator[Held]:
        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._call, key)
                await anyio.wait_all_tasks_blocked()
                yield self
                self.scope.cancel()

    async def gives_back(self) -> None:
        self.scope.cancel()
        await anyio.wait_all_tasks_blocked()


async def test_what_time_has_refilled_in_the_shared_bucket_is_not_given_back_as_well() -> None:
    clock = FakeClock()
    sources = KeyedTokenBucket(1, 1, clock, max_keys=1, when_full="share")
    assert sources.try_acquire("known")
    async with Held(sources, clock).by("new") as held:
        clock.advance(1)
        assert sources.try_acquire("known")
        assert sources.try_acquire("another")
        await held.gives_back()
        assert not sources.try_acquire("a third")


async def test_a_token_of_the_shared_bucket_goes_back_there_though_the_table_has_room_now() -> None:
    clock = FakeClock()
    sources = KeyedTokenBucket("1/h", 2, clock, max_keys=1, when_full="share")
    sources.try_acquire("known", 2)
    async with Held(sources, clock).by("new") as held:
        clock.advance(3600 * 1.5)
        sources.try_acquire("new", 2)
        await held.gives_back()
        assert not sources.try_acquire("new")


async def test_a_source_that_others_wait_for_gives_back_only_what_time_has_not_refilled() -> None:
    clock = FakeClock()
    sources = KeyedTokenBucket(1, 1, clock)
    sources.try_acquire("a")
    async with Held(sources, clock).by("a") as held, anyio.create_task_group() as tasks:
        tasks.start_soon(sources.acquire, "a")
        await anyio.wait_all_tasks_blocked()
        for _ in range(2):  # the caller that is held gets the first token, and the other the second
            clock.advance(1)
            await anyio.wait_all_tasks_blocked()
        await held.gives_back()
        assert not sources.try_acquire("a")


async def test_tokens_taken_at_another_rate_are_not_given_back() -> None:
    clock = FakeClock()
    sources = KeyedTokenBucket("1/h", 2, clock)
    async with Held(sources, clock).by("a") as held:
        sources.reconfigure(1, 2)
        clock.advance(1)  # which refills the token
        sources.try_acquire("a", 2)
        await held.gives_back()
        assert not sources.try_acquire("a")


async def test_a_source_whose_waiter_runs_late_is_not_forgotten_meanwhile() -> None:
    clock = FakeClock()
    sources = KeyedTokenBucket(1, 1, clock, max_keys=2)
    sources.try_acquire("slow")
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sources.acquire, "slow")
            await anyio.wait_all_tasks_blocked()
            clock.advance(10)  # its bucket is full, but its task has yet to run
            assert sources.try_acquire("other")
            assert sources.key_count == 2
        clock.advance(10)
        assert sources.forget_full() == 0
        assert [sources.try_acquire(key) for key in "abc"] == [True, True, False]


async def test_a_source_that_was_forgotten_after_another_caller_gave_back_gets_nothing() -> None:
    clock = FakeClock()
    sources = KeyedTokenBucket(1, 2, clock)
    async with Held(sources, clock).by("x") as first, Held(sources, clock).by("x") as second:
        await first.gives_back()
        clock.advance(1.5)
        assert sources.try_acquire("y")  # which forgets x, whose bucket is full
        await second.gives_back()
    assert sources.wait_time("x", 2) == 0


async def test_what_time_has_refilled_since_another_caller_gave_back_is_not_given_back_as_well() -> None:
    clock = FakeClock()
    sources = KeyedTokenBucket(1, 2, clock)
    async with Held(sources, clock).by("x") as first, Held(sources, clock).by("x") as second:
        await first.gives_back()
        clock.advance(1)
        assert sources.try_acquire("x", 2)
        await second.gives_back()
        assert not sources.try_acquire("x")


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
async def test_callers_give_back_all_that_they_hold_in_any_order(order: tuple[int, ...]) -> None:
    clock = FakeClock()
    sources = KeyedTokenBucket(1, 3, clock)
    callers = [Held(sources, clock) for _ in range(3)]
    async with callers[0].by("x"), callers[1].by("x"), callers[2].by("x"):
        assert not sources.try_acquire("x")
        for number in order:
            await callers[number].gives_back()
        assert sources.try_acquire("x", 3)


async def test_tokens_that_a_caller_got_at_last_are_not_given_back() -> None:
    clock = FakeClock()
    sources = KeyedTokenBucket("1/h", 2, clock)
    common = TokenBucket(1, 1, clock)
    limits = CompositeLimiter({"common": common, "source": sources})
    assert common.try_acquire()
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(limits.acquire, key="x"))
            await anyio.wait_all_tasks_blocked()
            clock.advance(1)
    assert sources.wait_time("x", 2) > 0
