"""Forwards the datagrams of one client by a socket of its own, which is connected to the upstream.

No task moves a datagram: one that is read from either side is sent to the other at once, or lost and counted.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar, Final, Protocol

import anyio
from anyio import BrokenResourceError, ClosedResourceError, WouldBlock

from esockd_core._connection.driver import Driver
from esockd_core._connection.names import text_of_name
from esockd_core._errors import BadValueError
from esockd_core._forwarding.proxy_header import proxy_header
from esockd_core._platform.socket_drops import dropped_datagrams
from esockd_core._stats.reasons import IDLE_TIMEOUT, SHUTDOWN, UPSTREAM_FAILED

if TYPE_CHECKING:
    from collections.abc import Callable

    from esockd_core._connection.datagram import DatagramBase
    from esockd_core._connection.driver import AnyDriver
    from esockd_core._forwarding.upstreams import Place, Upstream

LONGEST: Final = 65_536  # more than any datagram has
BATCH: Final = 16  # datagrams of one upstream taken in one wake-up
WAIT: Final = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR})


class Readable(Protocol):
    """What is told when its socket is readable."""

    def on_readable(self) -> None:
        """There is a datagram or an error to read."""


class DatagramForwarding:
    """What the relays of one listener share.

    Args:
        add: Lets the event loop tell when a socket is readable; it may raise OSError.
        remove: Ends that, before the socket is closed.

    Attributes:
        buffer: What datagrams of upstreams are read into.
    """

    __slots__ = ("add", "buffer", "remove")

    def __init__(self, add: Callable[[int, Readable], object], remove: Callable[[int], object]) -> None:
        self.add = add
        self.remove = remove
        self.buffer = memoryview(bytearray(LONGEST))

    def connector(self, client: DatagramBase) -> DatagramConnector:
        """Make the connector of a client."""
        return DatagramConnector(client, self)


class DatagramConnector:
    """Connects one client with upstreams; see `Connector`."""

    is_blind: ClassVar[bool] = True
    __slots__ = ("_client", "_forwarding")

    def __init__(self, client: DatagramBase, forwarding: DatagramForwarding) -> None:
        self._client = client
        self._forwarding = forwarding

    async def connect(self, place: Place, upstream: Upstream, header: bytes, timeout_s: float) -> DatagramRelay:  # noqa: ARG002
        """Make a socket that sends to an upstream and takes datagrams of nobody else. Nobody is asked."""
        family, address = place
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            sock.connect(address)
            relay = DatagramRelay(self._client, upstream, sock, header, self._forwarding)
            self._forwarding.add(sock.fileno(), relay)
        except BaseException:
            sock.close()
            raise
        return relay

    def relay(self, upstream: DatagramRelay, half_closed_timeout_s: float | None) -> DatagramRelay:  # noqa: ARG002
        """The relay between the client and an upstream."""
        return upstream


class DatagramRelay(Driver["DatagramBase"]):
    """The driver of a client whose datagrams are forwarded, and the socket to its upstream.

    Args:
        client: The client.
        upstream: The upstream.
        sock: The socket that is connected to it.
        header: The PROXY header in front of each datagram; empty for none.
        forwarding: What the relays of the listener share.
    """

    __slots__ = (
        "_client",
        "_forwarding",
        "_handled_by",
        "_has_failed",
        "_header",
        "_is_unanswered",
        "_named",
        "_over",
        "_recv_into",
        "_send",
        "_sock",
        "_upstream",
    )

    _handled_by: AnyDriver

    def __init__(
        self,
        client: DatagramBase,
        upstream: Upstream,
        sock: socket.socket,
        header: bytes,
        forwarding: DatagramForwarding,
    ) -> None:
        self._client = client
        self._upstream = upstream
        self._sock = sock
        self._send = sock.send
        self._recv_into = sock.recv_into
        self._header = header
        self._named = client.peername
        self._forwarding = forwarding
        self._over = anyio.Event()
        self._has_failed = False
        self._is_unanswered = False

    async def run(self) -> None:
        """Relay until the client ends or the upstream fails. The socket is then closed."""
        client = self._client
        self._handled_by = client.driver
        try:
            if client.state == "open":
                client.driver = self
                for datagram in client.take_waiting():
                    self.data_received(client, datagram)
                if client.draining:
                    self.drain_requested(client)
                await self._over.wait()
        finally:
            self._forwarding.remove(self._sock.fileno())
            if lost := dropped_datagrams(self._sock):
                client.site.counters.count_unsent(OSError(errno.ENOBUFS, ""), lost)
            self._sock.close()
            client.driver = self._handled_by  # or only the garbage collector would free the two
            del self._handled_by
        if self._has_failed:
            client.close_nowait(UPSTREAM_FAILED)
        elif self._upstream.is_failing and client.end_reason == IDLE_TIMEOUT:  # it takes datagrams and never answers
            self._works()

    # From the client

    def data_received(self, connection: DatagramBase, data: bytes) -> None:
        if connection.sender is not None:  # the header of a datagram cannot say whether it is genuine
            connection.refuse_foreign(data)
            return
        self._is_unanswered = True
        if self._header:
            data = self._header_now() + data
        try:
            self._send(data)
        except OSError as error:
            self._failed_to(error)

    def _header_now(self) -> bytes:
        if self._client.peername != self._named:  # its session has moved
            self._named = self._client.peername
            self._header = proxy_header(self._client, "v2")
        return self._header

    def drain_requested(self, connection: DatagramBase) -> None:
        if not self._is_unanswered:
            connection.close_nowait(SHUTDOWN)

    def cancel(self, connection: DatagramBase, reason: str) -> None:
        self._handled_by.cancel(connection, reason)

    def lost(self, connection: DatagramBase, broke: bool) -> None:
        self._over.set()
        self._handled_by.lost(connection, broke)

    def stack(self, connection: DatagramBase) -> str:
        return self._handled_by.stack(connection)

    # From the upstream

    def on_readable(self) -> None:
        """Take datagrams of the upstream, or what ICMP told of those to it (udp(7))."""
        buffer, client = self._forwarding.buffer, self._client
        for _ in range(BATCH):
            try:
                size = self._recv_into(buffer)
            except OSError as error:
                if (
                    error.errno == errno.EMSGSIZE
                ):  # the way is narrower than one was long; the next ones go in fragments
                    client.site.counters.count_unsent(error)
                    continue
                if error.errno not in WAIT:
                    self._failed_to(error, reads=True)
                return
            if self._upstream.is_failing:
                self._works()
            self._is_unanswered = False
            with suppress(WouldBlock, ClosedResourceError, BrokenResourceError):  # counted, or told to `lost`
                try:
                    client.send_nowait(bytes(buffer[:size]))
                except BadValueError:  # one that is too long for the client, or empty and for a client of DTLS
                    client.site.counters.count_unsent(OSError(errno.EMSGSIZE, ""))
            if client.draining:
                client.close_nowait(SHUTDOWN)
            if self._over.is_set():
                return

    def _failed_to(self, error: OSError, *, reads: bool = False) -> None:
        """Count a lost datagram. If its port is closed, the session ends, and the next may have another upstream."""
        client, upstream = self._client, self._upstream
        client.site.counters.count_unsent(error)
        if (reads or error.errno == errno.ECONNREFUSED) and not self._has_failed:
            self._has_failed = True
            upstream.failed()
            upstream.turn += 1
            why = os.strerror(error.errno or 0)
            client.site.log.say(logging.WARNING, "upstream %s failed: %s", upstream.address, why, connection=client)
            self._over.set()

    def _works(self) -> None:
        self._upstream.is_failing = False
        self._client.site.log.say(logging.INFO, "upstream %s works again", self._upstream.address)

    def __repr__(self) -> str:
        return f"<DatagramRelay of {text_of_name(self._named)} to {self._upstream.address}>"
