"""Connections to upstreams on asyncio and uvloop, and the relay between one and a client.

No task copies bytes: what a transport reads is written to the other transport there and then.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from esockd_core._connection import name_of
from esockd_core._relay import Relay
from esockd_core._tls import TlsEngine
from esockd_core._transports.asyncio import AsyncioConnection
from esockd_core._transports.asyncio_tls import shake_hands
from esockd_core._upstreams import CLOSED_AT_ONCE, UpstreamRefused, connect_unix

if TYPE_CHECKING:
    from esockd_core._carried import Carried
    from esockd_core._connection import State
    from esockd_core._service import Service
    from esockd_core._upstreams import Place, Upstream


class AsyncioUpstream(AsyncioConnection):
    """A connection that a forwarder made: judged by nobody, served by no handler, not among the listener's."""

    __slots__ = ()

    def __init__(self, service: Service, place: Place) -> None:
        super().__init__(service)
        self.socket_peername = name_of(place[1])

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment] # a stream has no other kind
        self._bound_buffers()
        self._service.upstreams.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._service.upstreams.discard(self)

    async def open(self, place: Place, upstream: Upstream, header: bytes) -> None:
        """Connect, send the header, and do the TLS handshake.

        Raises:
            OSError: Nobody takes the connection there.
            UpstreamRefused: It was lost at once, or the handshake failed.
        """
        family, address = place
        loop = self._service.loop
        if family == socket.AF_UNIX:
            await loop.create_unix_connection(lambda: self, sock=connect_unix(address))
        else:
            await loop.create_connection(lambda: self, address[0], address[1])
        if self._closing:
            raise UpstreamRefused(CLOSED_AT_ONCE)
        if header:
            self._write(header)
        if upstream.context is not None:
            engine = TlsEngine(upstream.context, upstream.server_name)
            refused = await shake_hands(self, self._transport, engine, b"")
            if refused is not None:
                raise UpstreamRefused(refused.why)

    def drop(self) -> None:
        """Close it at once, if it was ever made."""
        if self in self._service.upstreams:
            self.abort_socket()


class _End(asyncio.Protocol):
    """Stands where a connection stood as the protocol of its transport, and passes on what comes from it."""

    __slots__ = ("_connection", "_other", "_relay")

    def __init__(self, connection: AsyncioConnection, other: AsyncioConnection, relay: AsyncioRelay) -> None:
        self._connection = connection
        self._other = other
        self._relay = relay

    @property
    def state(self) -> State:
        """That of the connection, which a TLS transport asks for."""
        return self._connection.state

    def begin(self) -> None:
        """Take over, and pass on what came so far."""
        if unread := self._connection.hand_over_to(self):
            self._pass_on(unread)
        if self._connection.has_finished:
            self._finish()

    def data_received(self, data: bytes) -> None:
        self._connection.bytes_in += len(data)
        self._pass_on(data)

    def _pass_on(self, data: bytes) -> None:
        if not self._other._closing:  # noqa: SLF001 (`state` costs more, and this is for every message)
            self._other._write(data)  # noqa: SLF001 (what `send_nowait` does below its limit)

    def eof_received(self) -> bool:
        stays_open = self._connection.eof_received()
        self._finish()
        return stays_open

    def _finish(self) -> None:
        if self._other.state == "open":
            self._other._finish_sending()  # noqa: SLF001 (`send_eof`, without waiting)
        self._relay.notice()

    def pause_writing(self) -> None:
        self._connection.pause_writing()
        if self._other.state == "open":  # otherwise it reads on only to close in order
            self._other.pause_reading()

    def resume_writing(self) -> None:
        self._connection.resume_writing()
        self._other.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.connection_lost(exc)
        self._relay.notice()


class AsyncioRelay(Relay):
    """A relay whose transports write to each other; its task only waits for the end."""

    __slots__ = ("_change",)

    client: AsyncioConnection
    upstream: AsyncioUpstream
    _change: asyncio.Future[bool] | None

    def _begin(self) -> None:
        self._change = None
        ends = (_End(self.client, self.upstream, self), _End(self.upstream, self.client, self))
        for end in ends:
            end.begin()

    def notice(self) -> None:
        """A side finished, or is lost."""
        self._settle(True)

    def _settle(self, has_changed: bool) -> None:
        if self._change is not None and not self._change.done():
            self._change.set_result(has_changed)

    async def _changed(self, timeout_s: float | None) -> bool:
        loop = self.client.service.loop
        change: asyncio.Future[bool] = loop.create_future()
        self._change = change
        if timeout_s is None:
            return await change
        timer = loop.call_later(timeout_s, self._settle, False)
        try:
            return await change
        finally:
            timer.cancel()


class AsyncioForwarding:
    """Connects one client with upstreams; see `Forwarding`."""

    def __init__(self, client: AsyncioConnection) -> None:
        self._client = client

    async def connect(self, place: Place, upstream: Upstream, header: bytes, timeout_s: float) -> AsyncioUpstream:
        """Connect with an upstream."""
        connection = AsyncioUpstream(self._client.service, place)
        try:
            async with asyncio.timeout(timeout_s):
                await connection.open(place, upstream, header)
        except BaseException:
            connection.drop()
            raise
        return connection

    def relay(self, upstream: Carried, half_closed_timeout_s: float | None) -> AsyncioRelay:
        """A relay between the client and an upstream, to be run."""
        return AsyncioRelay(self._client, upstream, half_closed_timeout_s)
