"""Connections of either kind whose handlers are native tasks of asyncio or uvloop, and the driver that runs these."""

from __future__ import annotations

import asyncio
import io
from typing import TYPE_CHECKING, Any, TypeVar

from anyio.lowlevel import checkpoint_if_cancelled

from esockd_core._connection.driven import DrivenConnection
from esockd_core._connection.driver import Driver, split_program_end
from esockd_core._connection.receiving import YIELD_EVERY
from esockd_core._loops.asyncio.cancellation import is_in_cancel_scope, is_shielded
from esockd_core._loops.asyncio.resuming import wake
from esockd_core._stats.reasons import KILLED, NORMAL

if TYPE_CHECKING:
    from esockd_core._connection.handler import CoroutineHandler
    from esockd_core._loops.asyncio.side import AsyncioSide


class HandledConnection(DrivenConnection):
    """What streams and datagrams have in common on asyncio and uvloop. Their classes have the slots."""

    __slots__ = ()

    _side: AsyncioSide
    _task: asyncio.Task[object] | None

    def _wake_receiver(self) -> None:
        if self._receiver is not None:
            wake(self._receiver)

    def _may_be_cancelled(self) -> bool:
        return is_in_cancel_scope(self._side.loop)

    async def _checkpoint(self) -> None:
        if self._unyielded < YIELD_EVERY:
            self._unyielded += 1
            if is_in_cancel_scope(self._side.loop):
                await checkpoint_if_cancelled()
        else:
            self._unyielded = 0
            await asyncio.sleep(0)  # AnyIO's checkpoint, without its search for the event loop

    def handler_done(self, task: asyncio.Task[object]) -> None:
        """Begin the end of the connection, because the task of its handler is done."""
        self._task = None  # type: ignore[misc] # the slot is that of its class
        if task.cancelled():
            if self._reason is None and not task.cancelling():  # it raised that by itself
                self._handler_ended(self.reason_for(asyncio.CancelledError()))
            else:  # without a reason, by the program, or by the event loop that ends
                self._handler_ended(self._reason or KILLED, cancelled=True)
        else:
            error = task.exception()
            if error is None:
                self._handler_ended(NORMAL)
                return
            errors, program_end = split_program_end(error)
            self._handler_ended(NORMAL if errors is None else self.reason_for(errors))
            if program_end is not None and program_end is not error:  # alone, the loop has raised it
                self._side.end_program(program_end)

    def now(self) -> float:
        return self._side.loop.time()


H = TypeVar("H", bound=HandledConnection)


class HandlerDriver(Driver[H]):
    """Runs the handler of each connection in a task. One driver serves all connections of a listener."""

    __slots__ = ("_handler", "_side")

    receives = True

    def __init__(self, handler: CoroutineHandler, side: AsyncioSide) -> None:
        self._handler: Any = handler
        self._side = side

    def start(self, connection: H) -> None:
        try:
            connection._task = task = self._side.new_task(self._handler(connection))
        except Exception as error:  # noqa: BLE001 - it cannot be called with a connection, or is no coroutine function
            connection.close_nowait(connection.reason_for(error))
        else:
            # Without a context of its own, which it would keep as long as the connection lasts.
            task.add_done_callback(connection.handler_done, context=self._side.context)
            self._side.handler_due()

    def cancel(self, connection: H, reason: str) -> None:
        cancel_task(connection, reason)

    def lost(self, connection: H, broke: bool) -> None:  # noqa: ARG002
        if connection._task is None:
            # What `ended` does, without its call.
            connection._site.registry.ended(connection, connection._reason or NORMAL)

    def stack(self, connection: H) -> str:
        return stack_of_task(connection._task)


def cancel_task(connection: HandledConnection, reason: str) -> None:
    """Cancel the task of a handler, which ends its connection for this reason."""
    task = connection._task
    if task is not None:
        connection.note_reason(reason)
        if connection._lost or not is_shielded(task):
            task.cancel()


def stack_of_task(task: asyncio.Task[object] | None) -> str:
    """Where a task is, as text for the log."""
    text = io.StringIO()
    if task is not None:
        task.print_stack(file=text)
    return text.getvalue()
