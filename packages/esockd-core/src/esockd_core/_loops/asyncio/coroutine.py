"""Serves streams by a coroutine, each in a native task."""

from __future__ import annotations

from esockd_core._connection.face import READ_BYTES
from esockd_core._loops.asyncio.handled import HandlerDriver
from esockd_core._loops.asyncio.resuming import resume, wake
from esockd_core._loops.asyncio.stream import AsyncioStream


class CoroutineDriver(HandlerDriver[AsyncioStream]):
    """Keeps bytes until the handler receives them."""

    __slots__ = ()

    def data_received(self, connection: AsyncioStream, data: bytes) -> None:
        if connection._chunk is None:
            connection._chunk = data
            buffered = len(data)
        else:
            connection._buffer(data)
            buffered = connection._buffered_bytes()
        receiver = connection._receiver
        if receiver is not None and not receiver.done():
            if len(data) <= READ_BYTES:
                resume(receiver, self._side)
            else:  # uvloop may go on reading
                wake(receiver)
        elif buffered >= connection._site.options.read_buffer_bytes:
            connection._pause_input()

    def eof_received(self, connection: AsyncioStream) -> None:
        receiver = connection._receiver
        if receiver is not None:
            resume(receiver, self._side)
