"""Connections to upstreams on trio, and the relay between one and a client: a task for each direction."""

from __future__ import annotations

import os
import socket
from math import inf
from typing import TYPE_CHECKING, Any, cast

import trio
from anyio import BrokenResourceError, ClosedResourceError
from trio.lowlevel import wait_writable

from esockd_core._relay import Relay
from esockd_core._tls import TlsEngine
from esockd_core._transports.trio import TrioConnection
from esockd_core._transports.trio_tls import shake_hands
from esockd_core._upgrade import UpgradeRefused
from esockd_core._upstreams import CLOSED_AT_ONCE, UpstreamRefused, connect_unix

if TYPE_CHECKING:
    from esockd_core._carried import Carried
    from esockd_core._service import Service
    from esockd_core._upstreams import Place, Upstream


class TrioUpstream(TrioConnection):
    """A connection that a forwarder made: judged by nobody, served by no handler, not among the listener's.

    Attributes:
        relay: Who is told when it is lost.
    """

    __slots__ = ("relay",)

    def __init__(self, service: Service, nursery: trio.Nursery, connected: socket.socket) -> None:
        super().__init__(service, nursery, connected)
        self.relay: TrioRelay | None = None
        service.upstreams.add(self)

    def _ended(self) -> None:
        self._service.upstreams.discard(self)
        if self.relay is not None:
            self.relay.notice()

    async def open(self, upstream: Upstream, header: bytes) -> None:
        """Send the header and do the TLS handshake.

        Raises:
            OSError: The connection was lost.
            UpstreamRefused: It was lost at once, or the handshake failed.
        """
        try:
            if header:
                self._write(header)
            if upstream.context is not None:
                await self._wait_flushed()
                engine = TlsEngine(upstream.context, upstream.server_name)
                self._socket = cast("socket.socket", await shake_hands(self._socket, engine, b""))
                self._may_be_readable = True
        except UpgradeRefused as refused:
            raise UpstreamRefused(refused.why) from refused
        except (BrokenResourceError, ClosedResourceError, trio.ClosedResourceError) as error:
            raise UpstreamRefused(CLOSED_AT_ONCE) from error


class TrioRelay(Relay):
    """A relay of two tasks, which end with their connections."""

    __slots__ = ("_change", "_nursery")

    client: TrioConnection
    upstream: TrioUpstream
    _change: trio.Event | None
    _nursery: trio.Nursery

    async def run(self) -> None:
        async with trio.open_nursery() as self._nursery:
            await super().run()
            self._nursery.cancel_scope.cancel()

    def _begin(self) -> None:
        self._change = None
        self.upstream.relay = self
        self._nursery.start_soon(self._pass_on, self.client, self.upstream)
        self._nursery.start_soon(self._pass_on, self.upstream, self.client)

    async def _pass_on(self, source: TrioConnection, sink: TrioConnection) -> None:
        try:
            async for data in source:
                sink.send_nowait(data)
                if sink.unsent_bytes():
                    await sink._wait_writable()  # noqa: SLF001 (the half of `send` that `receive` does not do as well)
            await sink.send_eof()
        except (BrokenResourceError, ClosedResourceError):
            pass  # one of them is lost, and `state` tells which
        finally:
            self.notice()

    def notice(self) -> None:
        """A side finished, or is lost."""
        if self._change is not None:
            self._change.set()

    async def _changed(self, timeout_s: float | None) -> bool:
        self._change = change = trio.Event()
        with trio.move_on_after(inf if timeout_s is None else timeout_s):
            await change.wait()
        return change.is_set()


class TrioForwarding:
    """Connects one client with upstreams; see `Forwarding`."""

    def __init__(self, client: TrioConnection, nursery: trio.Nursery) -> None:
        self._client = client
        self._nursery = nursery

    async def connect(self, place: Place, upstream: Upstream, header: bytes, timeout_s: float) -> TrioUpstream:
        """Connect with an upstream."""
        family, address = place
        with trio.move_on_after(timeout_s):
            connected = connect_unix(address) if family == socket.AF_UNIX else await _connect_tcp(family, address)
            connection = TrioUpstream(self._client.service, self._nursery, connected)
            try:
                await connection.open(upstream, header)
            except BaseException:
                connection.abort_socket()
                raise
            return connection
        raise TimeoutError

    def relay(self, upstream: Carried, half_closed_timeout_s: float | None) -> TrioRelay:
        """A relay between the client and an upstream, to be run."""
        return TrioRelay(self._client, upstream, half_closed_timeout_s)


async def _connect_tcp(family: int, address: Any) -> socket.socket:
    connected = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
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
