"""PROXY header and TLS handshake on asyncio and uvloop: protocols that stand before the connection's own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from esockd_core._tls import TlsEngine
from esockd_core._transports.asyncio import AsyncioConnection
from esockd_core._transports.asyncio_callbacks import AsyncioCallbackConnection
from esockd_core._transports.asyncio_tls import TlsTransport
from esockd_core._upgrade import HeaderPhase, Upgraded, UpgradeRefused

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

    def _header_over(self, phase: HeaderPhase) -> None:
        self._service.upgrading.headers.pop(self, None)
        self._judge_source()
        self._secure(phase.unread)

    # TLS

    def _secure(self, unread: bytes) -> None:
        service = self._service
        context = self._upgrades().context
        if context is None:
            transport = self._transport
            transport.set_protocol(self)
            self._become_ready()
            if unread:  # for another protocol, where connection_made has begun with TLS
                cast("asyncio.Protocol", transport.get_protocol()).data_received(unread)
            return
        service.upgrading.handshakes[self] = service.loop.time()
        layer = TlsTransport(self._transport, self, TlsEngine(context), self._shaken)
        self._transport = layer
        layer.begin(unread)

    def _shaken(self, refused: UpgradeRefused | None) -> None:
        service = self._service
        if refused is not None:
            self._turn_away(refused)
        else:
            service.upgrading.handshake_done(self, service.loop.time())
            if not self._closing:
                self._become_ready()

    # Ends

    def _take_off_layers(self) -> None:
        if isinstance(self._transport, TlsTransport):
            self._transport = self._transport.real
        self._transport.set_protocol(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.is_upgrading:
            self._note_loss()
            AsyncioConnection.connection_lost(self, exc)
        else:
            super().connection_lost(exc)


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
