"""Serves datagram peers in memory by a handler, as a datagram listener serves those of a socket."""

from __future__ import annotations

import errno
import socket
from abc import ABC, abstractmethod
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import anyio
from anyio import ClosedResourceError
from anyio.abc import ObjectStream
from anyio.lowlevel import checkpoint

from esockd_core._admission.admission import Admission
from esockd_core._connection.port import DatagramPort
from esockd_core._connection.registry import Registry
from esockd_core._connection.site import Site
from esockd_core._listening.drain import Ending, drain_connections, end_connections
from esockd_core._listening.looking import count_bytes, snapshot
from esockd_core._listening.sweeper import Sweeper
from esockd_core._loops.carrier import open_datagram_carrier
from esockd_core._options.listener import ListenerOptions
from esockd_core._stats.counters import Counters
from esockd_core._stats.log import ListenerLog
from esockd_core.testing._memory import LISTENER, LOOK_EVERY_S

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from esockd_core._connection.handler import Handler
    from esockd_core._connection.served import ServedConnection
    from esockd_core._options.listener import PeerName
    from esockd_core._stats.counters import Stats
    from esockd_core.testing._impairment import Impairment

FIRST_PORT: Final = 50_000


class MemoryDatagramPeer(ObjectStream[bytes]):
    """A client of `memory_datagrams`, which a test holds.

    Attributes:
        name: Its address.
    """

    def __init__(self, name: tuple[str, int], arrive: Callable[[bytes, tuple[str, int]], None]) -> None:
        self.name = name
        self._arrive = arrive
        self._received: deque[bytes] = deque()
        self._changed = anyio.Event()
        self._closed = False

    def send_nowait(self, datagram: bytes) -> None:
        """Send a datagram to the handler.

        Raises:
            anyio.ClosedResourceError: If this end is closed.
        """
        if self._closed:
            raise ClosedResourceError
        self._arrive(bytes(datagram), self.name)

    async def send(self, item: bytes) -> None:
        """Send a datagram to the handler, and let it run.

        Raises:
            anyio.ClosedResourceError: If this end is closed.
        """
        self.send_nowait(item)
        await checkpoint()

    async def receive(self) -> bytes:
        """Wait for a datagram of the handler.

        Raises:
            anyio.ClosedResourceError: If this end is closed.
        """
        await checkpoint()
        while not self._received:
            if self._closed:
                raise ClosedResourceError
            await self._changed.wait()
        return self._received.popleft()

    def received(self) -> list[bytes]:
        """The datagrams that have come and were not received yet; they are not given again."""
        found = list(self._received)
        self._received.clear()
        return found

    async def send_eof(self) -> None:
        """A datagram peer never says that it has finished.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("a datagram peer cannot say that nothing more comes")

    async def aclose(self) -> None:
        """Leave without a word, as a UDP client does: the handler finds out by its idle timeout."""
        self._closed = True
        self._change()
        await checkpoint()

    def take(self, datagram: bytes) -> None:
        """A datagram of the handler has arrived."""
        if not self._closed:
            self._received.append(datagram)
            self._change()

    def _change(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


class MemoryDatagrams(ABC):
    """A datagram listener without a socket; see `memory_datagrams`.

    Attributes:
        failures: Exceptions of handlers that count as `handler_error`.
    """

    failures: list[BaseException]

    @abstractmethod
    def peer(self, name: tuple[str, int] | None = None) -> MemoryDatagramPeer:
        """Make a client.

        Args:
            name: Its address; None for a port of its own on loopback.
        """

    @abstractmethod
    def stats(self) -> Stats:
        """The counters, as those of a listener."""


class _Network(MemoryDatagrams):
    """Carries datagrams between the peers and the port of a handler."""

    def __init__(self, site: Site, admission: Admission, impairment: Impairment | None) -> None:
        self._site = site
        self._admission = admission
        self._impairment = impairment
        self._peers: dict[PeerName, MemoryDatagramPeer] = {}
        self.port: DatagramPort | None = None
        self.failures: list[BaseException] = []

    def peer(self, name: tuple[str, int] | None = None) -> MemoryDatagramPeer:
        name = ("127.0.0.1", FIRST_PORT + len(self._peers)) if name is None else name
        self._peers[name] = found = MemoryDatagramPeer(name, self.arrive)
        return found

    def stats(self) -> Stats:
        return snapshot(self._site, self._admission, None, count_bytes(self._site))

    def arrive(self, datagram: bytes, name: tuple[str, int]) -> None:
        """Send a datagram of a peer to the handler."""
        if self.port is None:
            raise ClosedResourceError
        for each in self._passes(datagram, ("in", name)):
            self.port.sock.arrived.append((each, name))  # type: ignore[attr-defined] # a _MemorySocket
        self.port.expect_many()
        while self.port.on_readable():
            pass

    def leave(self, datagram: bytes, name: PeerName) -> int:
        """Send a datagram of the handler to a peer."""
        for each in self._passes(datagram, ("out", name)):
            if (peer := self._peers.get(name)) is not None:
                peer.take(each)
        return len(datagram)

    def _passes(self, datagram: bytes, way: object) -> list[bytes]:
        return [datagram] if self._impairment is None else self._impairment.passes(datagram, way)


class _MemorySocket:
    """What a port uses of a socket."""

    family = socket.AF_INET

    def __init__(self, network: _Network, sockname: tuple[str, int]) -> None:
        self._network = network
        self._sockname = sockname
        self.arrived: deque[tuple[bytes, tuple[str, int]]] = deque()

    def getsockname(self) -> tuple[str, int]:
        return self._sockname

    def fileno(self) -> int:
        return -1

    def getsockopt(self, *_: int) -> int:
        raise OSError(errno.ENOPROTOOPT, "there is no kernel that could drop anything")

    def recvfrom(self, size: int) -> tuple[bytes, tuple[str, int]]:
        if not self.arrived:
            raise BlockingIOError(errno.EAGAIN, "nothing has come")
        datagram, name = self.arrived.popleft()
        return datagram[:size], name

    def sendto(self, datagram: bytes, name: PeerName) -> int:
        if len(datagram) > 65_507:  # as UDP over IPv4 has it
            raise OSError(errno.EMSGSIZE, "Message too long")
        return self._network.leave(bytes(datagram), name)


class _MemoryPort(DatagramPort):
    __slots__ = ()

    def _is_shut_down(self) -> bool:
        return False

    def _open_batch(self) -> None:
        """No kernel has these datagrams."""


class _Registry(Registry):
    """Keeps the exceptions of handlers for the test."""

    __slots__ = ("failures",)

    failures: list[BaseException]

    def handler_failed(self, connection: ServedConnection, error: BaseException) -> str:
        self.failures.append(error)
        return super().handler_failed(connection, error)


@asynccontextmanager
async def memory_datagrams(
    handler: Handler,
    *,
    options: ListenerOptions | None = None,
    sockname: tuple[str, int] = LISTENER,
    impairment: Impairment | None = None,
    raise_failure: bool = True,
) -> AsyncIterator[MemoryDatagrams]:
    """Serve datagram peers by a handler, without a listener and without a socket, for the duration of a block.

    What `peer()` of the block's object sends is there at once. It is judged, counted and given to handlers as by a
    datagram listener. At the end, the handlers are asked to end as by a listener that drains.

    Args:
        handler: A handler of either style.
        options: As of a listener; None for the defaults.
        sockname: The listener's end.
        impairment: What becomes of datagrams on their way, in both directions; None for a network without a fault.
        raise_failure: Whether the exception of a handler is raised at the end of the block.

    Raises:
        Exception: If the handler raised it and it counts as `handler_error`.
        InvalidOption: If the handler is not one.
    """
    options = options or ListenerOptions()
    counters, log = Counters(), ListenerLog("memory")
    site = Site("memory", handler, options, counters, log)
    site.registry = registry = _Registry("memory", counters, log, None)
    admission = Admission(options, options.access_list(), site.waiting, counters, log)
    site.judge, registry.release = admission, admission.release
    network = _Network(site, admission, impairment)
    registry.failures = network.failures
    try:
        async with open_datagram_carrier(site) as carrier, anyio.create_task_group() as task_group:
            fake: Any = _MemorySocket(network, sockname)
            network.port = port = _MemoryPort(site, carrier.arrivals, fake)
            site.ports.append(port)
            site.takes_new_peers = True
            task_group.start_soon(_keep_time, site)
            try:
                yield network
                site.takes_new_peers = False
                await drain_connections(site, Ending(options.shutdown_timeout))
            finally:
                with anyio.CancelScope(shield=True):
                    await end_connections(site)
                network.port = None
                task_group.cancel_scope.cancel()
    except BaseExceptionGroup as group:  # a failed assertion of the block is to arrive as one
        raise _only(group) from None
    if raise_failure and network.failures:
        raise network.failures[0]


def _only(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


async def _keep_time(site: Site) -> None:
    """Look at timeouts, as a listener does a few times a second."""
    sweeper = Sweeper(site)
    while True:
        await anyio.sleep(LOOK_EVERY_S)
        await sweeper.sweep(anyio.current_time())
