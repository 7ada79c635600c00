"""A task group in which listeners outlive the block that opened them, for as long as their drain takes."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio

from esockd_core._connection.driver import program_end_in

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyio.abc import TaskGroup, TaskStatus


@asynccontextmanager
async def sheltered_task_group() -> AsyncIterator[TaskGroup]:
    """A task group that waits for its tasks and cancels none of them when its block raises or is cancelled.

    The block has to make the tasks end. An error of one task cancels the others and the block. A single error is raised
    by itself, outside any group, and so is the first `KeyboardInterrupt` or `SystemExit` of several.
    """
    raised: Exception | None = None
    try:
        async with anyio.create_task_group() as task_group:
            leave = anyio.Event()
            try:
                yield await task_group.start(_shelter, leave)
            except Exception as error:  # noqa: BLE001 - raised below, for the task group would put it into a group
                raised = error
            finally:
                leave.set()
    except BaseExceptionGroup as group:
        alone = program_end_in(group) or _alone(group)
        if raised is not None and isinstance(alone, Exception | BaseExceptionGroup):
            raise BaseExceptionGroup("the block and what ran beside it failed", [raised, alone]) from None
        raise alone from alone.__cause__
    if raised is not None:
        raise raised


async def _shelter(leave: anyio.Event, *, task_status: TaskStatus[TaskGroup]) -> None:
    with anyio.CancelScope(shield=True):
        async with anyio.create_task_group() as task_group:
            task_status.started(task_group)
            await leave.wait()


def _alone(error: BaseException) -> BaseException:
    """The one error in a group of groups, or the group of several."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
