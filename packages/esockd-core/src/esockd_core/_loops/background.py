"""Tasks that belong to no task group: they may outlive the task that starts them."""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


def start_in_background(run: Callable[[], Coroutine[Any, Any, None]]) -> object:
    """Run a coroutine function in a separate task, which is cancelled when the event loop ends.

    Returns:
        The task. Keep it, or it may be collected while it runs.
    """
    if anyio.get_cancelled_exc_class() is CancelledError:
        return asyncio.get_running_loop().create_task(run())
    import trio  # noqa: PLC0415 (an extra)

    return trio.lowlevel.spawn_system_task(run, context=copy_context())
