"""Connections to upstreams on trio, and the relay between one and a client: a task for each direction."""

from __future__ import annotations

import os
import socket
from math import inf
from typing import TYPE_CHECKING, Any, ClassVar

import trio
from anyio import BrokenResourceError, ClosedResourceError
from trio.lowlevel import wait_writable

from esockd_core._connection.driver import NOBODY, Driver
from esockd_core._connection.entrance import EntranceRefused
from esockd_core._forwarding.relay import Relay
from esockd_core._forwarding.upstreams import CLOSED_AT_ONCE, UpstreamRefused, connect_unix
from esockd_core._loops.trio.stream import TrioStream
from esockd_core._tls.engine import TlsEngine

if TYPE_CHECKING:
    from esockd_core._connection.stream import StreamBase
    from esockd_core._forwarding.upstreams import Place, Upstream
    from esockd_core._loops.trio.side import TrioSide


class UpstreamDriver(Driver[TrioStream]):
    """The driver of a connection that a forwarder made. It is not judged and not among the listener's connections.

    Attributes:
        relay: Told when the connection is lost.
    """

    __slots__ = ("relay",)

    receives = True

    def __init__(self) -> None:
        self.relay: TrioRelay | None = None

    def lost(self, connection: TrioStream, broke: bool) -> None:  # noqa: ARG002
        if self.relay is not None:
            self.relay.notice()


class TrioRelay(Relay):
    """A relay of two tasks, which end when their connections do."""

    __slots__ = ("_change", "_nursery")

    client: TrioStream
    upstream: TrioStream
    _change: trio.Event | None
    _nursery: trio.Nursery

    async def run(self) -> None:
        async with trio.open_nursery() as self._nursery:
            try:
                await super().run()
            finally:  # or only the garbage collector would free the two
                self.upstream.driver = NOBODY
            self._nursery.cancel_scope.cancel()
        del self._nursery

    def _begin(self) -> None:
        self._change = None
        self.upstream.driver.relay = self  # type: ignore[attr-defined] # an UpstreamDriver
        self._nursery.start_soon(self._pass_on, self.client, self.upstream)
        self._nursery.start_soon(self._pass_on, self.upstream, self.client)

    async def _pass_on(self, source: TrioStream, sink: TrioStream) -> None:
        try:
            async for data in source:
                sink.send_nowait(data)
                if sink._write_paused:
                    await sink._wait_writable()  # the half of `send` that `receive` does not do as well
            await sink.send_eof()
        except (BrokenResourceError, ClosedResourceError):
            pass  # one of them is lost, and `state` tells which
        finally:
            self.notice()

    def notice(self) -> None:
        """Note that a side has finished or is lost."""
        if self._change is not None:
            self._change.set()

    async def _until_over(self) -> None:
        while not self._is_over():
            if not await self._changed(self._look_every_s()) and self._has_gone_quiet():
                self._end(is_quiet=True)

    async def _until_closed(self) -> None:
        while self.upstream.state != "closed":
            await self._changed(None)

    async def _changed(self, timeout_s: float | None) -> bool:
        self._change = change = trio.Event()
        with trio.move_on_after(inf if timeout_s is None else timeout_s):
            await change.wait()
        return change.is_set()


class TrioConnector:
    """Connects one client with upstreams; see `Connector`."""

    is_blind: ClassVar[bool] = False

    def __init__(self, client: TrioStream, side: TrioSide) -> None:
        self._client = client
        self._side = side

    async def connect(self, place: Place, upstream: Upstream, header: bytes, timeout_s: float) -> TrioStream:
        """Connect with an upstream."""
        family, address = place
        with trio.move_on_after(timeout_s):
            connected = connect_unix(address) if family == socket.AF_UNIX else await _connect_tcp(family, address)
            connection = TrioStream(self._client.site, UpstreamDriver(), self._side, connected)
            connection.site.watch.upstreams.add(connection)
            try:
                await _open(connection, upstream, header)
            except BaseException:
                connection.close_socket()
                raise
            return connection
        raise TimeoutError

    def relay(self, upstream: StreamBase, half_closed_timeout_s: float | None) -> TrioRelay:
        """Make the relay between the client and an upstream."""
        return TrioRelay(self._client, upstream, half_closed_timeout_s)


async def _open(connection: TrioStream, upstream: Upstream, header: bytes) -> None:
    """Send the header and do the TLS handshake."""
    try:
        if header:
            connection.send_nowait(header)
        if upstream.context is not None:
            await connection.wait_flushed()
            await connection.shake_hands(TlsEngine(upstream.context, upstream.server_name), b"")
    except EntranceRefused as refused:
        raise UpstreamRefused(refused.why) from None
    except (BrokenResourceError, ClosedResourceError, trio.ClosedResourceError) as error:
        raise UpstreamRefused(CLOSED_AT_ONCE) from error


async def _connect_tcp(family: int, address: Any) -> socket.socket:
    connected = socket.socket(family, socket.SOCK_STREAM)
    try:
        connected.setblocking(False)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        try:
            connected.connect(address)
        except BlockingIOError:
            await wait_writable(connected)
            if error := connected.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(error, os.strerror(error)) from None
    except BaseException:
        connected.close()
        raise
    return connected
