"""Whether an AnyIO cancel scope around the current asyncio task is cancelled, asked on every send and receive.

AnyIO's public answer, `checkpoint_if_cancelled`, costs three coroutines, about a tenth of a whole echo. Most tasks are
in no cancel scope at all, and that can be seen for the price of a dictionary lookup in AnyIO's own table of tasks.
Where this AnyIO has no such table, every task counts as one that may be cancelled, and the public function decides.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any
from weakref import ref

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

current_task: Callable[[asyncio.AbstractEventLoop], asyncio.Task[Any] | None] = asyncio.current_task
if sys.version_info < (3, 12):  # without the function in Python around it
    current_task = vars(asyncio.tasks)["_current_tasks"].get


class AnyTask(dict[Any, Any]):
    """Stands for the table where this AnyIO has none: any task may be cancelled."""

    def __contains__(self, task: object) -> bool:
        return True


try:
    from anyio._backends._asyncio import _task_states

    scoped_tasks: Mapping[Any, Any] = vars(_task_states)["data"]
except (ImportError, KeyError):  # pragma: no cover (no released AnyIO 4 is like that)
    scoped_tasks = AnyTask()


def is_shielded(task: asyncio.Task[object]) -> bool:
    """Whether a task is within a shielded cancel scope, which native cancellation would not respect."""
    state = scoped_tasks.get(ref(task))
    scope = None if state is None else state.cancel_scope
    while scope is not None and not scope.shield:
        scope = scope._parent_scope
    return scope is not None


def is_in_cancel_scope(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether the current task of a loop has entered a cancel scope, so that its cancellation has to be looked for."""
    return ref(current_task(loop)) in scoped_tasks  # asking which loop runs would cost twice as much
