"""Connections of either kind whose handlers are tasks of the listener's nursery, and the driver that runs these."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import trio

from esockd_core._connection.driven import DrivenConnection
from esockd_core._connection.driver import Driver, split_program_end
from esockd_core._stats.reasons import KILLED, NORMAL, SHUTDOWN

if TYPE_CHECKING:
    from esockd_core._connection.handler import CoroutineHandler
    from esockd_core._loops.trio.side import TrioSide


class HandledConnection(DrivenConnection):
    """What streams and datagrams have in common on trio. Their classes have the slots."""

    __slots__ = ()

    _handler_running: bool
    _scope: trio.CancelScope | None
    _task: trio.lowlevel.Task | None

    def _may_be_cancelled(self) -> bool:
        return True

    def now(self) -> float:
        return trio.current_time()


H = TypeVar("H", bound=HandledConnection)


class HandlerDriver(Driver[H]):
    """Runs the handler of each connection in a task. One driver serves all connections of a listener."""

    __slots__ = ("_handler", "_side")

    receives = True

    def __init__(self, handler: CoroutineHandler, side: TrioSide) -> None:
        self._handler: Any = handler
        self._side = side

    def start(self, connection: H) -> None:
        connection._handler_running = True
        connection._scope = trio.CancelScope()  # here and not in the task: it may be cancelled before its first turn
        self._side.nursery.start_soon(self._run, connection, connection._scope, trio.current_time())

    async def _run(self, connection: H, scope: trio.CancelScope, started_at: float) -> None:
        connection._task = trio.lowlevel.current_task()
        self._side.accept_delays.note(trio.current_time() - started_at)
        reason, was_cancelled = NORMAL, False
        try:
            with scope:
                await self._handler(connection)
            if scope.cancelled_caught:
                reason, was_cancelled = connection.end_reason or KILLED, True
        except trio.Cancelled:
            reason, was_cancelled = SHUTDOWN, True
            raise
        except BaseException as error:  # noqa: BLE001 - whatever a handler raises ends its own connection only
            errors, program_end = split_program_end(error, trio.Cancelled)
            if errors is not None:
                reason = connection.reason_for(errors)
            del errors  # its traceback holds this frame
            if program_end is not None:
                raise program_end from None
        finally:
            connection._task = None
            connection._handler_running = False
            connection._handler_ended(reason, cancelled=was_cancelled)

    def cancel(self, connection: H, reason: str) -> None:
        if connection._handler_running and connection._scope is not None:
            connection.note_reason(reason)
            connection._scope.cancel()

    def lost(self, connection: H, broke: bool) -> None:  # noqa: ARG002
        if not connection._handler_running:
            connection.ended(NORMAL)

    def stack(self, connection: H) -> str:
        return stack_of_task(connection._task)


def stack_of_task(task: trio.lowlevel.Task | None) -> str:
    """Where a task is, as text for the log."""
    if task is None:
        return ""
    frames = [
        f'  File "{frame.f_code.co_filename}", line {line}, in {frame.f_code.co_name}\n'
        for frame, line in task.iter_await_frames()
    ]
    return "".join(frames)
