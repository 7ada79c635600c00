"""Serves connections by callbacks on asyncio and uvloop: the protocol's methods call the handler's."""

from __future__ import annotations

from esockd_core._connection.callback_driver import CallbackDriver
from esockd_core._connection.stream import StreamBase


class AsyncioCallbackDriver(CallbackDriver[StreamBase]):
    """Calls the program's callbacks. A connection may pause reading at any time, even before it begins."""

    __slots__ = ()

    def data_received(self, connection: StreamBase, data: bytes) -> None:
        if connection._reading_paused:  # type: ignore[attr-defined] # an AsyncioStream
            # uvloop begins to read after connection_made, though that paused reading.
            connection._transport.pause_reading()  # type: ignore[attr-defined]
            connection._buffer(data)
            return
        try:  # as the base does, without its call
            self._context.copy().run(self._data_received, connection, data)
        except BaseException as error:  # noqa: BLE001
            self._failed(connection, error)

    def reading_resumed(self, connection: StreamBase) -> None:
        if connection._chunk is not None and not connection._closing:
            super().data_received(connection, connection._take_all_buffered())
