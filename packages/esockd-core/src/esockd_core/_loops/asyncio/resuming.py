"""What arrives resumes the task that waits for it, where it arrives, on asyncio and uvloop.

The next step of a task that waits is a callback of the future that it waits for. Once the future is done, the event
loop does the step in its next pass, after another look at all sockets. Here, whoever has read a socket takes the step
from the future and does it at once, in the task's context. It is asyncio's own step: the task is the current one, its
results and its cancellation are its own, and the event loop runs it after whatever else it waits for.

    the task waits, and something arrives -------------------------> its step is done here
    the task waits, and something arrives in the step of another --> the event loop does it: no step is within another
    the task waits and is not of asyncio's class in C -------------> the event loop does it
    the task was cancelled or woken, and something arrives --------> the event loop does it; what arrives is kept

In debug mode the event loop does every step, so that asyncio can tell which task took long.
"""

from __future__ import annotations

from types import BuiltinMethodType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from esockd_core._loops.asyncio.side import AsyncioSide

Step: TypeAlias = tuple[Any, Any]
"""The next step of a task that waits, and the context that it is done in."""

NO_STEP: Final[Step] = (None, None)


def resume(waiter: Any, side: AsyncioSide, *, keeps: bool = False) -> Step:
    """Have the task that waits for a future look at what has arrived.

    Args:
        waiter: The future.
        side: The event loop.
        keeps: Whether the task may wait for the same future again: it is not done where the step is done here.

    Returns:
        The step that was done here, and its context. Each step of the same task is equal to it.
    """
    try:
        ((step, context),) = waiter._callbacks
    except (AttributeError, TypeError, ValueError):  # it is done, or is no future as CPython's are today
        wake(waiter)
        return NO_STEP
    if type(step) is not BuiltinMethodType or not side.resumes:
        wake(waiter)
        return NO_STEP
    waiter.remove_done_callback(step)
    if not keeps:
        waiter.set_result(None)
    try:
        context.run(step, side.woken)
    except RuntimeError:
        leave_to_loop(waiter, step, context)
    except (KeyboardInterrupt, SystemExit) as error:
        side.end_program(error)
    try:
        return step, context
    finally:
        del step  # the frames of an error of the task may lead here, and the step leads to the task


def leave_to_loop(waiter: Any, step: Any, context: Any) -> None:
    """Have the event loop do a step that cannot be done within the step of a task, or within its own context."""
    wake(waiter)
    waiter.add_done_callback(step, context=context)


def wake(waiter: Any) -> None:
    """Have the event loop run the task that waits for a future."""
    if not waiter.done():
        waiter.set_result(None)
