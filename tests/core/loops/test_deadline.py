"""A deadline of asyncio's tasks that shares its timer with others."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import anyio
import pytest
import uvloop
from tests.patience import PATIENCE_S

from esockd_core._loops.asyncio.deadline import Deadline
from esockd_core._loops.asyncio.side import AsyncioSide

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    Run: TypeAlias = "Callable[[Coroutine[Any, Any, None]], None]"

pytestmark = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])


def new_side() -> AsyncioSide:
    return AsyncioSide("listener", cast("Any", None))


def test_what_takes_too_long_ends_with_a_timeout_and_the_task_goes_on(run: Run) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError), Deadline(new_side(), 0.02):
            await asyncio.sleep(PATIENCE_S)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(0)

    run(main())


def test_a_deadline_never_comes_early_however_often_somebody_looks(run: Run) -> None:
    async def main() -> None:
        side = new_side()
        with Deadline(side, PATIENCE_S) as deadline:
            for _ in range(20):
                deadline.look()
                await asyncio.sleep(0)

    run(main())


def test_what_ends_in_time_and_what_fails_are_left_alone(run: Run) -> None:
    async def main() -> None:
        with Deadline(new_side(), PATIENCE_S):
            await asyncio.sleep(0)
        with pytest.raises(OSError, match="refused"), Deadline(new_side(), PATIENCE_S):
            raise OSError("refused")

    run(main())


@pytest.mark.parametrize("timeout", [PATIENCE_S, 0.0])
def test_a_cancellation_by_somebody_else_stays_one_even_if_the_deadline_has_passed(run: Run, timeout: float) -> None:
    async def wait(side: AsyncioSide) -> None:
        with Deadline(side, timeout) as deadline:
            try:
                await asyncio.sleep(PATIENCE_S)
            finally:
                deadline.look()

    async def main() -> None:
        task = asyncio.create_task(wait(new_side()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    run(main())


def test_a_cancel_scope_around_it_ends_it_without_a_timeout(run: Run) -> None:
    async def main() -> None:
        with anyio.CancelScope() as scope:
            with Deadline(new_side(), PATIENCE_S):
                scope.cancel()
                await anyio.sleep(PATIENCE_S)
        assert scope.cancelled_caught

    run(main())


def test_deadlines_inside_each_other_end_what_is_theirs(run: Run) -> None:
    async def main() -> None:
        side = new_side()
        with Deadline(side, PATIENCE_S):
            with pytest.raises(TimeoutError), Deadline(side, 0.02):
                await asyncio.sleep(PATIENCE_S)
            await asyncio.sleep(0)
        with pytest.raises(TimeoutError), Deadline(side, 0.02), Deadline(side, PATIENCE_S):
            await asyncio.sleep(PATIENCE_S)

    run(main())


def test_timeouts_of_about_one_length_share_a_timer_that_looks_8_to_16_times(run: Run) -> None:
    async def main() -> None:
        side = new_side()
        assert side.rounds(5.0) is side.rounds(4.99) is side.rounds(4.0)
        assert side.rounds(3.99) is not side.rounds(4.0)
        for timeout_s in (0.01, 0.3, 1.0, 4.0, 5.0, 60.0, 3600.0):
            assert timeout_s / 16 <= side.rounds(timeout_s).interval_s <= timeout_s / 8
        assert side.rounds(0.0) is side.rounds(1e-9)

    run(main())
