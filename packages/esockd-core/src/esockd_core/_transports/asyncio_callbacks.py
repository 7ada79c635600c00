"""Callback connections on asyncio and uvloop: the protocol's own methods call the handler's."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from esockd_core._connection import RESET
from esockd_core._transports.asyncio import AsyncioConnection
from esockd_core._transports.callbacks import CalledBack

if TYPE_CHECKING:
    from esockd_core._connection import StreamConnection
    from esockd_core._handler import CallbackHandler
    from esockd_core._service import Service
    from esockd_core._tls_options import TlsOptions
    from esockd_core._upgrade import UpgradeRefused


class AsyncioCallbackConnection(CalledBack, AsyncioConnection):
    """A connection served by callbacks."""

    __slots__ = ("_callbacks", "_on_data")

    def __init__(self, service: Service, callbacks: CallbackHandler) -> None:
        AsyncioConnection.__init__(self, service)
        self._callbacks = callbacks
        self._on_data = callbacks.data_received

    def _start(self) -> None:
        try:
            self._callbacks.connection_made(self)
        except BaseException as error:  # noqa: BLE001
            self._callback_failed(error)
        if self._reading_paused:
            self._on_data = self._hold_back

    def _hold_back(self, connection: StreamConnection, data: bytes) -> None:  # noqa: ARG002
        # uvloop begins to read after connection_made, though that paused reading: once, until it is paused again here.
        self._transport.pause_reading()
        self._chunk = data

    def resume_reading(self) -> None:
        held, self._chunk = self._chunk, None
        self._on_data = self._callbacks.data_received
        super().resume_reading()
        if held is not None and not self._closing:
            self._call(lambda connection: self._callbacks.data_received(connection, cast("bytes", held)))

    def start_tls_nowait(self, options: TlsOptions, received: bytes = b"") -> None:
        self._begin_tls(options, received, self._tls_begun)

    def _tls_begun(self, refused: UpgradeRefused | None) -> None:
        if refused is not None:
            self._tls_refused(refused.why)
        elif not self._closing:
            self._call(self._callbacks.tls_started)

    def _callback_failed(self, error: BaseException) -> None:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            self._service.loop.call_soon(_raise, error)  # uvloop would swallow it here, in a protocol's method
            self.close_nowait()
        else:
            super()._callback_failed(error)

    def data_received(self, data: bytes) -> None:
        self.bytes_in += len(data)
        if self._closing:
            return
        try:
            self._on_data(self, data)
        except BaseException as error:  # noqa: BLE001
            self._callback_failed(error)

    def eof_received(self) -> bool:
        self._eof = True
        if not self._closing:
            try:
                self._callbacks.eof_received(self)
            except BaseException as error:  # noqa: BLE001
                self._callback_failed(error)
        return not self._closing

    def pause_writing(self) -> None:
        super().pause_writing()
        if not self._closing:
            self._call(self._callbacks.pause_writing)

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self._closing:
            self._call(self._callbacks.resume_writing)

    def connection_lost(self, exc: Exception | None) -> None:
        self._error = error = self._error or exc
        if error is not None and not self._closing:
            self._reason = RESET
        self._lost = self._closing = True
        if self.id:
            try:
                self._callbacks.connection_lost(self, error)
            except BaseException as raised:  # noqa: BLE001
                self._callback_failed(raised)
        super().connection_lost(exc)


def _raise(error: BaseException) -> None:
    raise error
