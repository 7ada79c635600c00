"""Serves streams by a coroutine, each in a task of the listener's nursery."""

from __future__ import annotations

import trio

from esockd_core._loops.trio.handled import HandlerDriver
from esockd_core._loops.trio.stream import TrioStream


class CoroutineDriver(HandlerDriver[TrioStream]):
    """Runs the handler, which reads for itself."""

    __slots__ = ()

    def start(self, connection: TrioStream) -> None:
        connection.moved_at = trio.current_time()
        super().start(connection)
