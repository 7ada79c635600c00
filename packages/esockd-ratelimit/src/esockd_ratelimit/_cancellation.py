"""Whether the caller has been cancelled, which every `acquire` has to ask even where tokens are there.

AnyIO's own answer, `checkpoint_if_cancelled`, costs ten times as much as taking a token. On asyncio, AnyIO keeps the
cancel scope of each task in a table of its own, and `may_be_cancelled` reads that instead. Where it cannot, it says
yes, and AnyIO has to be asked.
"""

from __future__ import annotations

from sys import modules
from typing import Any
from weakref import ref


def may_be_cancelled() -> bool:
    """Whether a cancel scope around the current task is cancelled, or this cannot be told without asking AnyIO."""
    backend: Any = modules.get("anyio._backends._asyncio")  # loaded with the first use of AnyIO on asyncio
    if backend is None:
        return True
    try:
        loop = backend.asyncio._get_running_loop()  # noqa: SLF001
        if loop is None:  # on trio
            return True
        state = backend._task_states.data.get(ref(backend.current_task(loop)))  # noqa: SLF001
        scope = None if state is None else state.cancel_scope
        while scope is not None:
            if scope.cancel_called:
                return True
            if scope.shield:
                return False
            scope = scope._parent_scope  # noqa: SLF001
    except (TypeError, AttributeError):  # outside of any task, or an AnyIO that is built otherwise
        return True
    return False
