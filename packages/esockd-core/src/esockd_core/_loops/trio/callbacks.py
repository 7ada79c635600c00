"""Serves connections by callbacks on trio, where one task reads for all of a listener."""

from __future__ import annotations

from typing import TYPE_CHECKING

from esockd_core._connection.callback_driver import CallbackDriver
from esockd_core._connection.stream import StreamBase
from esockd_core._loops.trio.side import end_program

if TYPE_CHECKING:
    from esockd_core._connection.handler import CallbackHandler
    from esockd_core._loops.trio.side import TrioSide


class TrioCallbackDriver(CallbackDriver[StreamBase]):
    """Calls the program's callbacks from the poller's task and from the tasks that flush."""

    __slots__ = ("_side",)

    def __init__(self, callbacks: CallbackHandler, side: TrioSide) -> None:
        super().__init__(callbacks, end_program, side.context)
        self._side = side

    def start(self, connection: StreamBase) -> None:
        failure: OSError | None = None
        try:
            connection._resume_input()
        except OSError as error:  # no descriptor or memory for the poller
            failure = error
        super().start(connection)
        if failure is not None:
            connection.fail(failure)

    def lost(self, connection: StreamBase, broke: bool) -> None:
        # Not at once: the code that closed it may run inside a callback of this or another connection.
        self._side.nursery.start_soon(self._tell_lost, connection, broke)

    async def _tell_lost(self, connection: StreamBase, broke: bool) -> None:
        super().lost(connection, broke)
