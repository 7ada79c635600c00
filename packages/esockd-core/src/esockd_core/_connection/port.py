"""One socket of a datagram listener, and the loop that takes datagrams from it.

The first datagram of a peer is its arrival; every further one is a look into a dictionary. The work of one wake-up is
bounded. As long as several wait at once, they are taken by one call, where the kernel has one for that. A single one is
cheaper by itself.
"""

from __future__ import annotations

import errno
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import anyio

from esockd_core._connection.datagram_sorting import DatagramSorting
from esockd_core._connection.names import name_of
from esockd_core._platform.datagram_batch import NAME_BYTES, SLOTS, DatagramBatch, address_in, batches_work
from esockd_core._platform.listening import is_shut_down
from esockd_core._platform.segmentation import segments_of, takes_trains
from esockd_core._platform.socket_drops import dropped_datagrams
from esockd_core._stats.counters import Dropped

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Hashable, Iterator, Sequence

    from esockd_core._connection.datagram import DatagramBase
    from esockd_core._connection.datagram_sorting import Arrivals
    from esockd_core._connection.site import Site
    from esockd_core._options.listener import ListenerOptions, PeerName

BATCH: Final = 64  # datagrams taken in one wake-up, so that a flood cannot starve what else the loop does
DTLS_BATCH: Final = 16  # where each may be a hello that takes a signature: half a millisecond with RSA 2048
PROBE_EVERY: Final = 16  # wake-ups that took one datagram, before the next one looks whether more wait
LONGEST: Final = 65_536  # with a PROXY header, whose length is not known before
FATAL: Final = frozenset({errno.EBADF, errno.ENOTSOCK, errno.EINVAL, errno.EFAULT})
WAIT: Final = frozenset({errno.EAGAIN, errno.EWOULDBLOCK})
SHORTAGE: Final = frozenset({errno.ENOBUFS, errno.ENOMEM})


class DatagramPort(DatagramSorting):
    """One socket of a datagram listener, which may be replaced by another one while its peers stay.

    Args:
        site: The parts of the listener.
        arrivals: Makes connections of new peers.

    Attributes:
        sock: The socket that is read from and sent by.
        bound: The address that it is bound to, as the kernel told it.
        family: Its address family.
        sendto: The socket's own.
    """

    __slots__ = (
        "_batch",
        "_budget",
        "_is_leaving",
        "_is_special",
        "_kernel_drops",
        "_known",
        "_many",
        "_most_bytes",
        "_options",
        "_read_bytes",
        "_received",
        "_recvfrom",
        "_room",
        "_until_probe",
        "_wait_for_room",
        "bound",
        "family",
        "sendto",
        "sock",
        "takes_trains",
    )

    _ancillary_bytes = 0  # room for what the kernel tells with each datagram

    def __init__(self, site: Site, arrivals: Arrivals, sock: socket.socket) -> None:
        DatagramSorting.__init__(self, site, arrivals)
        self._batch = BATCH if site.options.dtls is None else DTLS_BATCH
        self._budget = self._batch
        self._until_probe = PROBE_EVERY
        self._room = anyio.Lock()
        self._wait_for_room: anyio.CancelScope | None = None
        self._kernel_drops = 0
        self._known: dict[bytes, DatagramBase] = {}  # by the origin of their datagrams, as the kernel packs it
        self._many: DatagramBatch | None = None  # made when several wait for the first time
        self._received: Iterator[tuple[bytes, int, bytes]] = iter(())
        self.use(sock)
        self._follow(site.options)

    def expect_many(self) -> None:
        """Take whole batches from now on."""
        self._budget = self._batch

    def use(self, sock: socket.socket) -> None:
        """Read from and send by this socket from now on."""
        self.sock = sock
        self._is_leaving = False
        self.sendto: Callable[[bytes, Any], int] = sock.sendto
        self._recvfrom = sock.recvfrom
        self.takes_trains = takes_trains(sock)
        self.bound = sock.getsockname()
        self.family = sock.family
        self._kernel_drops = dropped_datagrams(sock) or 0

    # Taking datagrams

    def on_readable(self) -> int:
        """Take what has come, at most a batch, and return how many that were.

        Raises:
            OSError: If the socket will not work again, or if the system lacks memory.
        """
        site = self._site
        if site.options is not self._options:
            self._follow(site.options)
        if self._many is not None and self._budget > 1:
            return self._take_many(self._many)
        peers, recvfrom, size, most_bytes = self.peers, self._recvfrom, self._read_bytes, self._most_bytes
        is_special, limits = self._is_special, site.judge.packet_limits
        budget, taken = self._budget, 0
        try:
            while taken < budget:
                datagram, address = recvfrom(size)
                taken += 1
                connection = peers.get(address)
                if is_special:
                    self._take_special(datagram, address, address)
                elif connection is None or (length := len(datagram)) > most_bytes:
                    self._take_other(datagram, address, address)
                elif limits is not None and not limits.allow(address):
                    site.counters.count_dropped(Dropped.PACKET_RATE)
                elif connection.layer is None:
                    connection.datagrams_in += 1
                    connection.bytes_in += length
                    connection.driver.data_received(connection, datagram)
                else:
                    connection.layer.received(connection, datagram)
        except OSError as error:
            self._stopped(error, taken)
        else:
            self._took_all(budget)
        finally:
            site.counters.datagrams_in += taken
        return taken

    def _take_many(self, many: DatagramBatch) -> int:
        """Do what `on_readable` does, by calls that take several datagrams.

        If a handler has this port read in its turn, it first gets the rest of what the last call took.
        """
        site, known, most_bytes = self._site, self._known, self._most_bytes
        limits = site.judge.packet_limits
        budget, taken = self._budget, 0
        try:
            while True:
                for datagram, length, origin in self._received:
                    taken += 1
                    connection = known.get(origin)
                    if connection is None or length > most_bytes:
                        self._take_unknown(datagram, origin)
                    elif limits is not None and not limits.allow(connection.peer_address):
                        site.counters.count_dropped(Dropped.PACKET_RATE)
                    elif connection.layer is None:
                        connection.datagrams_in += 1
                        connection.bytes_in += length
                        connection.driver.data_received(connection, datagram)
                    else:
                        connection.layer.received(connection, datagram)
                if taken >= budget or (taken and not many.is_full):
                    break
                try:
                    self._received = many.take(self.sock.fileno())
                except OSError as error:
                    self._stopped(error, taken)
                    return taken
            if taken <= 1:
                self._expect_single()
        finally:
            site.counters.datagrams_in += taken
        return taken

    def _take_unknown(self, datagram: bytes, origin: bytes) -> None:
        """Take a datagram of a peer whose origin is new to this port, or one that is too long."""
        site, limits = self._site, self._site.judge.packet_limits
        address, key = self._sender_in(origin)
        connection = self.peers.get(key)
        if connection is None or len(datagram) > self._most_bytes:
            self._take_other(datagram, address, key)
        elif limits is not None and not limits.allow(address):
            site.counters.count_dropped(Dropped.PACKET_RATE)
        else:
            if connection.origin is None:
                connection.origin = origin
                self._known[origin] = connection
            connection.received(datagram)

    def _sender_in(self, origin: bytes) -> tuple[Any, Hashable]:
        """The address of a peer and the key of its datagrams."""
        address = address_in(origin)
        return address, address

    def _took_all(self, budget: int) -> None:
        """Note that a wake-up has taken as many datagrams as it may."""
        if budget > 1:
            self._open_batch()
            return
        self._until_probe -= 1
        if not self._until_probe:
            self._budget = self._batch

    def _expect_single(self) -> None:
        """Take one at a time for a while: to find that no more wait costs as much as a datagram."""
        self._budget, self._until_probe = 1, PROBE_EVERY

    def _open_batch(self) -> None:
        """Take several datagrams by one call from now on, where that can be done."""
        if self._many is None and not self._is_special:
            with suppress(OSError):  # without memory or a descriptor for it, they are taken one by one
                if batches_work():
                    name_bytes, slots = NAME_BYTES[self.family], min(SLOTS, self._batch)
                    self._many = DatagramBatch(self._read_bytes, name_bytes, self._ancillary_bytes, slots)

    def _follow(self, options: ListenerOptions) -> None:
        """Take datagrams by these options from now on. They are looked at when they change, not at each wake-up."""
        self._options = options
        self._most_bytes = options.udp.max_datagram_bytes
        self._read_bytes = self._most_bytes + 1 if options.proxy is None else LONGEST  # one more tells what is too long
        self._is_special = options.udp.session_id is not None or options.proxy is not None
        self._many = None

    def _stopped(self, error: OSError, taken: int) -> None:
        """Look at what ended a batch; errors pass that concern one datagram, such as what ICMP told (udp(7)).

        Raises:
            OSError: If the socket will not work again, or if the system lacks memory.
        """
        if taken <= 1:
            self._expect_single()
        else:
            self._open_batch()
        if error.errno in FATAL or error.errno in SHORTAGE:
            raise error
        if not taken and error.errno in WAIT and self._is_shut_down():
            raise OSError(errno.EINVAL, "the socket was shut down") from None

    def _is_shut_down(self) -> bool:
        return is_shut_down(self.sock)

    def send_train(self, datagrams: Sequence[bytes], address: Any) -> None:
        """Give several datagrams for an address to the kernel, which takes all of them or none."""
        self.sock.sendmsg(datagrams, (segments_of(len(datagrams[0])),), 0, address)

    # Its peers

    def forget(self, connection: DatagramBase, key: Hashable) -> None:
        """The next datagram of this peer is that of a new one."""
        if self.peers.get(key) is connection:
            del self.peers[key]
            if connection.origin is not None:
                self._known.pop(connection.origin, None)
                connection.origin = None

    def adopt(self, other: DatagramPort) -> None:
        """Take over the peers of a port whose socket is gone."""
        for key, connection in other.peers.items():
            if key not in self.peers:
                self.peers[key] = connection
                connection.port, connection.origin = self, None
        other.peers = {}

    def local_name(self, key: Hashable) -> PeerName:  # noqa: ARG002
        """The address that a peer has asked."""
        return name_of(self.bound)

    # The socket

    async def wait_writable(self) -> None:
        """Return when there may be room in the send buffer, or when the socket is about to be closed."""
        async with self._room:  # event loops let one task wait for a socket
            if not self._is_leaving:
                with anyio.CancelScope() as self._wait_for_room:
                    await anyio.wait_writable(self.sock)

    async def leave(self) -> None:
        """Let nobody wait for the socket any more. An event loop never tells of one that was closed meanwhile."""
        self._is_leaving = True
        if self._wait_for_room is not None:
            self._wait_for_room.cancel()
        async with self._room:
            pass

    def look_at_kernel(self) -> None:
        """Count the datagrams that the kernel has dropped since the last look."""
        dropped = dropped_datagrams(self.sock)
        if dropped is not None and dropped != self._kernel_drops:
            number = (dropped - self._kernel_drops) & 0xFFFF_FFFF
            self._kernel_drops = dropped
            self._site.counters.datagrams_in += number
            self._site.counters.count_dropped(Dropped.KERNEL_OVERFLOW, number)
