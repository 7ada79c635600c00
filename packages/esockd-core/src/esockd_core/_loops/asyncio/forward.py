"""Connections to upstreams on asyncio and uvloop, and the relay between one and a client.

No task copies bytes: bytes that one transport reads are written to the other at once.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, ClassVar

from esockd_core._connection.driver import NOBODY, Driver
from esockd_core._connection.names import as_bytes
from esockd_core._forwarding.relay import Relay
from esockd_core._forwarding.upstreams import CLOSED_AT_ONCE, UpstreamRefused, connect_unix
from esockd_core._loops.asyncio.coroutine import CoroutineDriver
from esockd_core._loops.asyncio.deadline import Deadline
from esockd_core._loops.asyncio.stream import AsyncioStream
from esockd_core._tls.engine import TlsEngine

if TYPE_CHECKING:
    from esockd_core._connection.entrance import EntranceRefused
    from esockd_core._connection.stream import StreamBase
    from esockd_core._forwarding.upstreams import Place, Upstream
    from esockd_core._loops.asyncio.rounds import Rounds
    from esockd_core._loops.asyncio.side import AsyncioSide


class UpstreamDriver(Driver[AsyncioStream]):
    """The driver of a connection that a forwarder makes. It is not judged and not among the listener's connections."""

    __slots__ = ()

    def start(self, connection: AsyncioStream) -> None:
        connection.bound_buffers()
        connection.site.watch.upstreams.add(connection)

    def data_received(self, connection: AsyncioStream, data: bytes) -> None:
        connection._buffer(data)  # until it is relayed


UPSTREAM = UpstreamDriver()


class RelayDriver(Driver[AsyncioStream]):
    """Passes bytes from one side to the other.

    Args:
        other: The other side.
        relay: Told when this side has finished or is lost.
        handled_by: For a client, the driver of the handler that forwards; None for an upstream.
    """

    __slots__ = ("_handled_by", "_other", "_relay")

    def __init__(self, other: AsyncioStream, relay: AsyncioRelay, handled_by: CoroutineDriver | None) -> None:
        self._other = other
        self._relay = relay
        self._handled_by = handled_by

    def start(self, connection: AsyncioStream) -> None:
        connection.driver = self
        if connection._chunk is not None:
            self.data_received(connection, as_bytes(connection._take_all_buffered()))
        if connection._eof:
            self._finish()
        if self._other._write_paused:
            connection._pause_input()
        else:
            connection._resume_input()

    def data_received(self, connection: AsyncioStream, data: bytes) -> None:  # noqa: ARG002
        # What `send_nowait` does below its limit, without its call. What is lost, the relay is told next.
        other = self._other
        if not (other._closing or other._eof_sent):
            transport = other._transport
            if not transport.is_closing():
                other.bytes_out += len(data)
                transport.write(data)

    def eof_received(self, connection: AsyncioStream) -> None:  # noqa: ARG002
        self._finish()

    def _finish(self) -> None:
        other = self._other
        if not (other._closing or other._eof_sent):
            other._eof_sent = True
            other._finish_sending()  # `send_eof`, without waiting
        self._relay.notice()

    def writing_paused(self, connection: AsyncioStream) -> None:  # noqa: ARG002
        if not self._other._closing:  # otherwise it reads on only to close in order
            self._other._pause_input()

    def writing_resumed(self, connection: AsyncioStream) -> None:  # noqa: ARG002
        self._other._resume_input()

    def cancel(self, connection: AsyncioStream, reason: str) -> None:
        if self._handled_by is None:
            super().cancel(connection, reason)
        else:
            self._handled_by.cancel(connection, reason)

    def lost(self, connection: AsyncioStream, broke: bool) -> None:
        if self._handled_by is not None:
            self._handled_by.lost(connection, broke)
        self._relay.notice()

    def stack(self, connection: AsyncioStream) -> str:
        return "" if self._handled_by is None else self._handled_by.stack(connection)


class AsyncioRelay(Relay):
    """A relay between two transports that write to each other.

    Its drivers begin the end themselves. Its task only waits for the upstream to be closed.
    """

    __slots__ = ("_closed", "_rounds")

    client: AsyncioStream
    upstream: AsyncioStream

    async def run(self) -> None:
        driver = self.client.driver
        try:
            await super().run()
        finally:  # or only the garbage collector would free the two
            self.client.driver, self.upstream.driver = driver, NOBODY
            if self._rounds is not None:
                self._rounds.discard(self)

    def _begin(self) -> None:
        self._rounds: Rounds | None = None
        self._closed: asyncio.Future[None] | None = None
        client, upstream = self.client, self.upstream
        handled_by = client.driver if isinstance(client.driver, CoroutineDriver) else None
        RelayDriver(upstream, self, handled_by).start(client)
        RelayDriver(client, self, None).start(upstream)

    def notice(self) -> None:
        """Note that a side has finished or is lost."""
        if self._is_over():
            if not self._has_ended:  # and not before what both have sent is written
                self.client._side.loop.call_soon(self._end)
            if self.upstream._lost and self._closed is not None and not self._closed.done():
                self._closed.set_result(None)
        elif self._rounds is None and self.half_closed_timeout_s is not None and self._look_every_s() is not None:
            self._rounds = self.client._side.rounds(self.half_closed_timeout_s)
            self._rounds.add(self)

    def look(self) -> None:
        """End both sides if nothing has moved for too long since one has finished."""
        if not self._has_ended and self._has_gone_quiet():
            self._end(is_quiet=True)

    def _is_over(self) -> bool:
        client, upstream = self.client, self.upstream  # what the base does, without calls
        return client._closing or upstream._closing or (client._eof and upstream._eof)

    async def _until_over(self) -> None:
        if not self._is_over():
            await self._until_closed()

    async def _until_closed(self) -> None:
        if not self.upstream._lost:
            self._closed = closed = self.client._side.loop.create_future()
            await closed


class AsyncioConnector:
    """Connects one client with upstreams; see `Connector`."""

    is_blind: ClassVar[bool] = False

    def __init__(self, client: AsyncioStream, side: AsyncioSide) -> None:
        self._client = client
        self._side = side

    async def connect(self, place: Place, upstream: Upstream, header: bytes, timeout_s: float) -> AsyncioStream:
        """Connect with an upstream."""
        connection = AsyncioStream(self._client.site, UPSTREAM, self._side)
        try:
            with Deadline(self._side, timeout_s):
                await self._open(connection, place, upstream, header)
        except BaseException:
            if connection in connection.site.watch.upstreams:  # it was made
                connection.close_socket()
            raise
        return connection

    async def _open(self, connection: AsyncioStream, place: Place, upstream: Upstream, header: bytes) -> None:
        family, address = place
        loop = self._side.loop
        if family == socket.AF_UNIX:
            await loop.create_unix_connection(lambda: connection, sock=connect_unix(address))
        else:
            await loop.create_connection(lambda: connection, address[0], address[1])
        if connection._closing:
            raise UpstreamRefused(CLOSED_AT_ONCE)
        if header:
            connection.send_nowait(header)
        if upstream.context is not None:
            await _shake_hands(connection, TlsEngine(upstream.context, upstream.server_name))

    def relay(self, upstream: StreamBase, half_closed_timeout_s: float | None) -> AsyncioRelay:
        """Make the relay between the client and an upstream."""
        return AsyncioRelay(self._client, upstream, half_closed_timeout_s)


async def _shake_hands(connection: AsyncioStream, engine: TlsEngine) -> None:
    shaken: asyncio.Future[EntranceRefused | None] = asyncio.get_running_loop().create_future()

    def note(refused: EntranceRefused | None) -> None:
        if not shaken.done():
            shaken.set_result(refused)

    connection.put_tls_under(engine, b"", note)
    refused = await shaken
    if refused is not None:
        raise UpstreamRefused(refused.why)
