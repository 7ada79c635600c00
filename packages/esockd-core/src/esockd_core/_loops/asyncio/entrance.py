"""PROXY header and TLS handshake on asyncio and uvloop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from esockd_core._connection.entrance import EntranceRefused
from esockd_core._connection.entrance_driver import EntranceDriver
from esockd_core._loops.asyncio.stream import AsyncioStream
from esockd_core._tls.engine import TlsEngine

if TYPE_CHECKING:
    from esockd_core._connection.entrance import HeaderPhase


class AsyncioEntranceDriver(EntranceDriver[AsyncioStream]):
    """Reads the header as it comes. The TLS layer does the handshake, and gets the bytes from then on."""

    __slots__ = ()

    def start(self, connection: AsyncioStream) -> None:
        if self._begin(connection) is None:
            self._secure(connection, b"")

    def data_received(self, connection: AsyncioStream, data: bytes) -> None:
        connection.bytes_in -= len(data)  # these are the proxy's, or are given to the handler once more
        phase = self._phase
        if phase is None:
            return
        try:
            if phase.feed(data):
                self._header_over(connection, phase)
        except EntranceRefused as refused:
            self.turn_away(connection, refused)

    def eof_received(self, connection: AsyncioStream) -> None:
        phase = self._phase
        if phase is None:
            return
        try:
            phase.end()
            self._header_over(connection, phase)
        except EntranceRefused as refused:
            self.turn_away(connection, refused)
            return
        layer = connection._tls_layer()
        if layer is not None:
            layer.eof_received()
        elif not connection._closing:
            connection.driver.eof_received(connection)

    def _header_over(self, connection: AsyncioStream, phase: HeaderPhase) -> None:
        self._judge(connection, phase)
        self._secure(connection, phase.unread)

    def _secure(self, connection: AsyncioStream, unread: bytes) -> None:
        context = self._context(connection)
        if context is None:
            self._pass(connection, unread)
            return
        connection.site.waiting.handshakes[connection] = connection.now()

        def shaken(refused: EntranceRefused | None) -> None:
            if refused is not None:
                self.turn_away(connection, refused)
            else:
                connection.site.waiting.handshake_done(connection, connection.now())
                if not connection._closing:
                    self._pass(connection)

        connection.put_tls_under(TlsEngine(context), unread, shaken)

    def _take_off_tls(self, connection: AsyncioStream) -> None:
        connection.take_off_tls()
