"""PROXY header and TLS handshake on asyncio and uvloop: protocols that stand before the connection's own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from esockd_core._tls import TlsEngine
from esockd_core._transports.asyncio import AsyncioCallbackConnection, AsyncioConnection
from esockd_core._transports.asyncio_tls import TlsTransport
from esockd_core._upgrade import SOURCE_REFUSED, TLS_FAILED, HeaderPhase, Upgraded, UpgradeRefused

if TYPE_CHECKING:
    from esockd_core._service import Service


class HeaderReader(asyncio.Protocol):
    """Reads the PROXY header of one connection."""

    __slots__ = ("_connection",)

    def __init__(self, connection: _AsyncioUpgrade) -> None:
        self._connection = connection

    def data_received(self, data: bytes) -> None:
        """Bytes came, of the header and perhaps of what follows."""
        self._connection.read_header(data)

    def eof_received(self) -> bool:
        """The peer finished sending before the header was whole."""
        return self._connection.header_cut_short()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection ended meanwhile."""
        self._connection.connection_lost(exc)


class _AsyncioUpgrade(Upgraded, AsyncioConnection):
    """What both styles of handlers have in common; callbacks hear of a connection once it is ready."""

    __slots__ = ()

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._init_upgrade()

    def _start(self) -> None:
        policy = self._upgrades().policy
        if policy is None:
            self._secure(b"")
        else:
            self._phase = HeaderPhase(policy)
            self._service.upgrading.headers[self] = self._service.loop.time()
            self._transport.set_protocol(HeaderReader(self))

    # The header

    def read_header(self, data: bytes) -> None:
        """Take bytes that may be the header's."""
        phase = self._phase
        if phase is None or self._closing:
            return
        try:
            if phase.feed(data):
                self._header_over(phase)
        except UpgradeRefused as refused:
            self._turn_away(refused)

    def header_cut_short(self) -> bool:
        """The peer finished sending; say whether the connection stays open all the same."""
        phase = self._phase
        if phase is None or self._closing:
            return False
        try:
            phase.end()
            self._header_over(phase)
        except UpgradeRefused as refused:
            self._turn_away(refused)
            return False
        layer = self._transport
        return layer.eof_received() if isinstance(layer, TlsTransport) else self.eof_received()

    def header_timed_out(self) -> None:
        """The time for the header is over."""
        phase = self._phase
        if phase is None or self._closing:
            return
        try:
            phase.end(timed_out=True)
            self._header_over(phase)
        except UpgradeRefused as refused:
            self._turn_away(refused)

    def _header_over(self, phase: HeaderPhase) -> None:
        self._service.upgrading.headers.pop(self, None)
        self._judge_source()
        self._secure(phase.unread)

    # TLS

    def _secure(self, unread: bytes) -> None:
        service = self._service
        context = self._upgrades().context
        if context is None:
            self._transport.set_protocol(self)
            self._become_ready()
            if unread:
                self.data_received(unread)
            return
        service.upgrading.handshakes[self] = service.loop.time()
        layer = TlsTransport(self._transport, self, TlsEngine(context), self._shaken)
        self._transport = layer
        layer.begin(unread)

    def _shaken(self, refused: UpgradeRefused | None) -> None:
        self._service.upgrading.handshakes.pop(self, None)
        if refused is not None:
            self._turn_away(refused)
        elif not self._closing:
            self._become_ready()

    def _become_ready(self) -> None:
        self._is_ready = True
        super()._start()
        if self.draining:  # asked while nobody was there to be told
            self.draining = False
            self.request_draining()

    # Ends

    def _turn_away(self, refused: UpgradeRefused) -> None:
        self._note(refused)
        if self._lost:
            return
        transport = self._transport
        if isinstance(transport, TlsTransport):
            self._transport = transport = transport.real
        if refused.reason in SOURCE_REFUSED:
            transport.set_protocol(self)
            self._refuse(self._service.options.refuse_with)
        elif refused.reason == TLS_FAILED and not transport.is_closing():
            # Closing in order, so that the alert that says why is not lost.
            transport.set_protocol(self)
            AsyncioConnection.close_nowait(self, refused.reason)
        else:
            self.abort_socket()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._is_upgrading():
            self._note_loss()
            AsyncioConnection.connection_lost(self, exc)
        else:
            super().connection_lost(exc)

    def close_nowait(self, reason: str = "normal") -> None:
        if self._is_upgrading():
            self.abort(reason)
        else:
            super().close_nowait(reason)

    def cancel_handler(self, reason: str) -> None:
        if self._is_upgrading():
            self.abort(reason)
        else:
            super().cancel_handler(reason)

    def request_draining(self) -> None:
        if self._is_upgrading():
            AsyncioConnection.request_draining(self)
        else:
            super().request_draining()


class AsyncioUpgraded(_AsyncioUpgrade):
    """A connection served by a coroutine handler once its upgrades are done."""

    __slots__ = Upgraded.UPGRADE_SLOTS


class AsyncioCallbackUpgraded(_AsyncioUpgrade, AsyncioCallbackConnection):
    """A connection served by callbacks once its upgrades are done."""

    __slots__ = Upgraded.UPGRADE_SLOTS


def make_upgraded(service: Service) -> AsyncioConnection:
    """The protocol of a new socket, by the style of the handler at this moment."""
    if service.callbacks is not None:
        return AsyncioCallbackUpgraded(service, service.callbacks)
    return AsyncioUpgraded(service)
