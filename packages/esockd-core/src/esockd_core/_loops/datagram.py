"""What the carriers of datagram listeners share: which port a socket belongs to, and what to do about its errors."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Final

import anyio
from anyio.lowlevel import checkpoint

from esockd_core._connection.driver import NOBODY
from esockd_core._connection.port import FATAL, DatagramPort
from esockd_core._connection.wildcard_port import WildcardPort
from esockd_core._platform.packet_info import ask_for_local_address, is_wildcard

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable

    from esockd_core._connection.datagram import DatagramBase
    from esockd_core._connection.datagram_sorting import NewConnection
    from esockd_core._connection.driver import AnyDriver
    from esockd_core._connection.handler import Handler
    from esockd_core._connection.site import Site

PAUSE_S: Final = 0.1  # after an error of the system's; as long as the first one after accept(2)
LAST_BATCHES: Final = 64  # taken from a socket that is about to be closed


class Arrivals:
    """Where a new peer goes: the one place that decides its first driver.

    Args:
        site: The parts of the listener.
        new_connection: Makes the connection of a peer that was not judged yet, on this event loop.
        make_driver: Makes the driver of a handler.
    """

    def __init__(self, site: Site, new_connection: NewConnection, make_driver: Callable[[Handler], AnyDriver]) -> None:
        self._site = site
        self.new_connection = new_connection
        self._make_driver = make_driver
        self._handler: Handler | None = None
        self._driver: AnyDriver = NOBODY

    def begin(self, connection: DatagramBase) -> None:
        """Register a connection that was admitted, and start its handler, or its handshake."""
        if self._site.dtls is not None:
            self._site.dtls.enter(connection, self.handler_driver)
            return
        self._site.registry.add(connection)
        if connection.state == "open":  # the hook that was told of its start may have closed it
            connection.driver = driver = self.handler_driver()
            driver.start(connection)

    def handler_driver(self) -> AnyDriver:
        """The driver of the handler that serves new connections now."""
        handler = self._site.handler
        if handler is not self._handler:
            self._handler = handler
            self._driver = self._make_driver(handler)
        return self._driver


class DatagramCarrier:
    """Reads the sockets of one datagram listener; an event loop adds how it waits for them.

    Attributes:
        arrivals: Where new peers go.
    """

    def __init__(self, site: Site, arrivals: Arrivals) -> None:
        self._site = site
        self.arrivals = arrivals
        self._ports: list[DatagramPort] = []

    def use_sockets(self, sockets: Iterable[socket.socket]) -> None:
        """Read from and send by these sockets from now on.

        The peers of a socket stay with the one that has the same address now, or else with one of the same family.
        Those without any are ended.
        """
        site = self._site
        old, ports = self._ports, list[DatagramPort]()
        left = list(sockets)
        for is_same in (_has_same_address, _is_alike):
            for sock in list(left):
                if (port := next((port for port in old if is_same(port, sock)), None)) is not None:
                    port.use(sock)
                    ports.append(port)
                    old.remove(port)
                    left.remove(sock)
        ports += [
            (WildcardPort if _tells_local_address(sock) else DatagramPort)(site, self.arrivals, sock) for sock in left
        ]
        for port in old:
            heir = next((each for each in ports if _is_alike(port, each.sock)), None)
            if heir is not None:
                heir.adopt(port)
            for connection in list(port.peers.values()):
                connection.fail(ConnectionAbortedError("the listener has left the address of its socket"))
        self._ports, site.ports[:] = ports, ports

    async def leave_sockets(self) -> None:
        """Wait for none of the sockets any more, because they are about to be closed."""
        with anyio.CancelScope(shield=True):  # which takes a few turns of the event loop
            for port in self._ports:
                await port.leave()

    async def accept(self, listening: socket.socket) -> None:
        """Take datagrams from a socket until cancelled; see `Carrier`."""
        inode = os.fstat(listening.fileno()).st_ino  # of a duplicate, as acceptors have them
        port = next(port for port in self._ports if os.fstat(port.sock.fileno()).st_ino == inode)
        while True:
            error = await self.read(port, listening)
            if error.errno in FATAL:
                raise error
            self._site.counters.closed_sys_limit += 1
            self._site.log.say(logging.WARNING, "reading datagrams failed: %s; trying again in 0.1 s", error)
            await anyio.sleep(PAUSE_S)

    async def read(self, port: DatagramPort, listening: socket.socket) -> OSError:
        """Let a port take datagrams until one cannot be taken, and return that error."""
        raise NotImplementedError

    async def serve_queued(self, listening: socket.socket, at_most: int) -> None:  # noqa: ARG002
        """Take the datagrams that wait at the sockets, which are about to be closed; see `Carrier`."""
        for port in self._ports:
            port.expect_many()
            for _ in range(LAST_BATCHES):
                if not port.on_readable():
                    break
                await checkpoint()
            port.look_at_kernel()


def _has_same_address(port: DatagramPort, sock: socket.socket) -> bool:
    return bool(port.bound == sock.getsockname()) and _is_alike(port, sock)


def _is_alike(port: DatagramPort, sock: socket.socket) -> bool:
    return port.family == sock.family and isinstance(port, WildcardPort) is _tells_local_address(sock)


def _tells_local_address(sock: socket.socket) -> bool:
    return is_wildcard(sock) and ask_for_local_address(sock)
