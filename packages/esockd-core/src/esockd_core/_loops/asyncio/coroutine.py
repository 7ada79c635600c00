"""Serves streams by a coroutine, each in a native task."""

from __future__ import annotations

from esockd_core._loops.asyncio.handled import HandlerDriver
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
        if receiver is not None:
            if not receiver.done():
                receiver.set_result(None)
        elif buffered >= connection._site.options.read_buffer_bytes:
            connection._pause_input()

    def eof_received(self, connection: AsyncioStream) -> None:
        connection._wake_receiver()
