"""One socket of a datagram listener: its peers, and the loop that takes datagrams from it.

The first datagram of a peer is its arrival and passes the admission of the listener; every further one is a look into a
dictionary. The work of one wake-up is bounded, and a peer that is refused leaves nothing behind.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import anyio

from esockd_core._connection.names import name_of
from esockd_core._connection.peers import Sender, SharedSocket
from esockd_core._connection.proxied_datagrams import admits_source, key_behind, read_header
from esockd_core._platform.listening import is_shut_down
from esockd_core._platform.segmentation import segments_of, takes_trains
from esockd_core._platform.socket_drops import dropped_datagrams
from esockd_core._stats.counters import Dropped, Refused
from esockd_core._stats.reasons import REPLACED

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Hashable, Sequence

    from esockd_core._connection.datagram import DatagramBase
    from esockd_core._connection.entrance import ProxiedClient
    from esockd_core._connection.served import ServedConnection
    from esockd_core._connection.site import Site
    from esockd_core._options.listener import PeerName

BATCH: Final = 64  # datagrams taken in one wake-up, so that a flood cannot starve what else the loop does
DTLS_BATCH: Final = 16  # where each may be a hello that takes a signature: half a millisecond with RSA 2048
PROBE_EVERY: Final = 16  # wake-ups that took one datagram, before the next one looks whether more wait
LONGEST: Final = 65_536  # with a PROXY header, whose length is not known before
FATAL: Final = frozenset({errno.EBADF, errno.ENOTSOCK, errno.EINVAL, errno.EFAULT})
WAIT: Final = frozenset({errno.EAGAIN, errno.EWOULDBLOCK})
SHORTAGE: Final = frozenset({errno.ENOBUFS, errno.ENOMEM})

CAUSES: Final = {
    Refused.EARLY: Dropped.OTHER,
    Refused.FORBIDDEN: Dropped.FORBIDDEN,
    Refused.MAX_LIMIT: Dropped.MAX_LIMIT,
    Refused.RATE_LIMITED: Dropped.RATE_LIMITED,
    Refused.OVERLOADED: Dropped.OVERLOADED,
    Refused.OTHER: Dropped.OTHER,
}


NewConnection: TypeAlias = "Callable[[DatagramPort, Any, Hashable], DatagramBase]"
"""Makes the connection of a peer that was not judged yet, from the port, its address and its key."""


class Arrivals(Protocol):
    """Makes connections of new peers, on one event loop."""

    new_connection: NewConnection

    def begin(self, connection: DatagramBase) -> None:
        """Register a connection that was admitted, and start its next driver."""


class DatagramPort(SharedSocket):
    """One socket of a datagram listener, which may be replaced by another one while its peers stay.

    Args:
        site: The parts of the listener.
        arrivals: Makes connections of new peers.

    Attributes:
        sock: The socket that is read from and sent by.
        bound: The address that it is bound to, as the kernel told it.
        family: Its address family.
        peers: Connections by what their datagrams are known by.
        sendto: The socket's own.
    """

    __slots__ = (
        "_arrivals",
        "_batch",
        "_budget",
        "_is_leaving",
        "_kernel_drops",
        "_recvfrom",
        "_room",
        "_site",
        "_until_probe",
        "_wait_for_room",
        "bound",
        "family",
        "peers",
        "sendto",
        "sock",
        "takes_trains",
    )

    def __init__(self, site: Site, arrivals: Arrivals, sock: socket.socket) -> None:
        self._site = site
        self._arrivals = arrivals
        self._batch = BATCH if site.options.dtls is None else DTLS_BATCH
        self._budget = self._batch
        self._until_probe = PROBE_EVERY
        self._room = anyio.Lock()
        self._wait_for_room: anyio.CancelScope | None = None
        self.peers: dict[Hashable, DatagramBase] = {}
        self._kernel_drops = 0
        self.use(sock)

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
        peers, recvfrom = self.peers, self._recvfrom
        most_bytes = self._site.options.udp.max_datagram_bytes
        size = most_bytes + 1  # one more tells what is too long
        if self._site.options.proxy is not None:
            size = LONGEST
        limits = self._site.judge.packet_limits
        options = self._site.options
        is_special = options.udp.session_id is not None or options.proxy is not None
        budget = self._budget
        taken = 0
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
                    self._site.counters.count_dropped(Dropped.PACKET_RATE)
                elif connection.layer is None:
                    connection.datagrams_in += 1
                    connection.bytes_in += length
                    connection.driver.data_received(connection, datagram)
                else:
                    connection.layer.received(connection, datagram)
        except OSError as error:
            self._stopped(error, taken)
        else:
            self._until_probe -= 1
            if not self._until_probe:
                self._budget = self._batch
        finally:
            self._site.counters.datagrams_in += taken
        return taken

    def _stopped(self, error: OSError, taken: int) -> None:
        """Look at what ended a batch; errors pass that concern one datagram, such as what ICMP told (udp(7)).

        Raises:
            OSError: If the socket will not work again, or if the system lacks memory.
        """
        if taken <= 1:  # as long as they come one by one: to find the queue empty costs as much as a datagram
            self._budget, self._until_probe = 1, PROBE_EVERY
        if error.errno in FATAL or error.errno in SHORTAGE:
            raise error
        if not taken and error.errno in WAIT and self._is_shut_down():
            raise OSError(errno.EINVAL, "the socket was shut down") from None

    def _is_shut_down(self) -> bool:
        return is_shut_down(self.sock)

    def _take_other(self, datagram: bytes, address: Any, key: Hashable) -> None:
        """Take a datagram of a new peer, or one that is too long."""
        site = self._site
        if len(datagram) > site.options.udp.max_datagram_bytes:
            site.counters.count_dropped(Dropped.TOO_LONG)
        elif not site.takes_new_peers:
            site.counters.count_dropped(Dropped.SUSPENDED)
        elif not self._is_over_limit(address) and not self._is_answered(datagram, address, key):
            self._arrive(datagram, address, key)

    def _take_special(self, datagram: bytes, address: Any, key: Hashable) -> None:
        """Take a datagram of a listener with PROXY headers or with sessions that change their address."""
        if self._site.options.proxy is None:
            self._take_of_session(datagram, address, key)
        else:
            self._take_proxied(datagram, address, key)

    def _take_proxied(self, datagram: bytes, address: Any, key: Hashable) -> None:
        """Take a datagram with a PROXY header."""
        site, limits = self._site, self._site.judge.packet_limits
        if not site.judge.permits(name_of(address)):
            site.counters.count_dropped(Dropped.FORBIDDEN)
            return
        found = read_header(datagram)
        if found is None:
            site.counters.count_dropped(Dropped.PROXY_INVALID)
            return
        client, payload = found
        behind = key_behind(key, client)
        connection = self.peers.get(behind)
        if limits is not None and not limits.allow(behind):
            site.counters.count_dropped(Dropped.PACKET_RATE)
        elif len(payload) > site.options.udp.max_datagram_bytes:
            site.counters.count_dropped(Dropped.TOO_LONG)
        elif connection is not None:
            connection.received(payload)
        else:
            self._take_new_client(payload, address, behind, client)

    def _take_new_client(self, payload: bytes, address: Any, key: Hashable, client: ProxiedClient) -> None:
        """Take a datagram of a new client behind a proxy."""
        if not self._site.takes_new_peers:
            self._site.counters.count_dropped(Dropped.SUSPENDED)
        elif not self._is_answered(payload, address, key, client):
            self._arrive(payload, address, key, client)

    def _take_of_session(self, datagram: bytes, address: Any, key: Hashable) -> None:
        """Take a datagram that may carry the id of a session at another address."""
        site, connection = self._site, self.peers.get(key)
        udp, owners = site.options.udp, site.sessions.owners
        if len(datagram) > udp.max_datagram_bytes or udp.session_id is None:
            self._take_other(datagram, address, key)
            return
        found = site.sessions.id_in(datagram, udp.session_id)
        owner: DatagramBase | None = None if found is None else owners.get(found)
        if owner is None and connection is None:
            self._take_other(datagram, address, key)
            owner = self.peers.get(key)
            if found is not None and owner is not None and owner.session_id is None and found not in owners:
                owner.session_id = found
        elif self._is_over_limit(address):
            pass
        elif owner is None or owner is connection:
            if connection is not None:
                if found is not None and connection.session_id is None:
                    connection.session_id = found
                connection.received(datagram)
        else:
            self._take_from_elsewhere(datagram, Sender(self, address, key, len(datagram)), owner)

    def _take_from_elsewhere(self, datagram: bytes, sender: Sender, owner: DatagramBase) -> None:
        """Take a datagram with the id of a session that has another address."""
        site, decide = self._site, self._site.options.udp.may_move
        peer = name_of(sender.address)
        if not site.judge.permits(peer):
            site.counters.count_dropped(Dropped.FORBIDDEN)
        elif decide is None and owner.layer is None:
            owner.deliver_foreign(datagram, sender)
        elif decide is not None and site.sessions.may_move(decide, owner, datagram, peer) and owner.state == "open":
            self.move(owner, sender)
            owner.received(datagram)
        else:
            site.counters.count_dropped(Dropped.NOT_MOVED)

    def move(self, connection: DatagramBase, sender: Sender) -> None:
        """Give a session to another address. Whoever has that one loses it, and so does its old address."""
        rival = self.peers.get(sender.key)
        if rival is connection:
            return
        connection.port.forget(connection, connection.key)
        if rival is not None:
            rival.abort(REPLACED)
        connection.port, connection.key, connection.peer_address = self, sender.key, sender.address
        connection.address = self._way_to(sender.address, sender.key)
        connection.socket_peername = name_of(sender.address)
        self.peers[sender.key] = connection
        self._site.judge.moved(connection)

    def _is_over_limit(self, address: Any) -> bool:
        """Whether a datagram of a new peer is one too many, or of a peer that may not spend what others share."""
        site = self._site
        limits = site.judge.packet_limits
        if limits is None:
            return False
        if not site.judge.permits(name_of(address)):
            site.counters.count_dropped(Dropped.FORBIDDEN)
            return True
        if not limits.allow(address):
            site.counters.count_dropped(Dropped.PACKET_RATE)
            return True
        return False

    def _is_answered(self, datagram: bytes, address: Any, key: Hashable, client: ProxiedClient | None = None) -> bool:
        """Answer what needs no connection."""
        site = self._site
        check, doorkeeper = site.options.udp.health_check, site.doorkeeper
        reply = check[1] if check is not None and datagram == check[0] else None
        if reply is None and doorkeeper is None:
            return False
        source = None if client is None else client.source
        peer = name_of(address) if source is None else source
        is_permitted = site.judge.permits(peer) if client is None else site.judge.permits_source(peer)
        if not is_permitted:
            site.counters.count_dropped(Dropped.FORBIDDEN)
            return True
        answer = doorkeeper.answer(datagram, peer) if reply is None and doorkeeper is not None else reply
        if answer is None:
            return False
        if not answer and reply is None:
            site.counters.count_dropped(Dropped.DTLS)
            return True
        site.counters.datagrams_answered += 1
        try:
            self.sendto(answer, self._way_to(address, key))
        except OSError as error:
            site.counters.count_unsent(error)
        else:
            site.counters.datagrams_out += 1
        return True

    def _arrive(self, datagram: bytes, address: Any, key: Hashable, client: ProxiedClient | None = None) -> None:
        site = self._site
        connection = self._arrivals.new_connection(self, address, key)
        if not site.judge.admits(connection):
            site.counters.count_dropped(CAUSES[site.counters.refusals[-1].stage])
            return
        if client is not None and not admits_source(site, connection, client):
            return
        connection.address = self._way_to(address, key)
        self.peers[key] = connection
        self._arrivals.begin(connection)
        if connection.state == "open":
            connection.received(datagram)
        else:  # closed by the hook that was told of its start, or by its handler
            site.counters.count_dropped(Dropped.UNREAD)

    def _way_to(self, address: Any, key: Hashable) -> Any:  # noqa: ARG002
        """What `sendto` takes as the address of a peer."""
        return address

    def send_train(self, datagrams: Sequence[bytes], address: Any) -> None:
        """Give several datagrams for an address to the kernel, which takes all of them or none."""
        self.sock.sendmsg(datagrams, (segments_of(len(datagrams[0])),), 0, address)

    # Its peers

    def forget(self, connection: ServedConnection, key: Hashable) -> None:
        """The next datagram of this peer is that of a new one."""
        if self.peers.get(key) is connection:
            del self.peers[key]

    def start_anew(self, connection: DatagramBase, datagram: bytes) -> None:
        """End a connection, because its peer has started again with this datagram, and let that arrive."""
        connection.abort(REPLACED)
        client = connection.client
        if client is None:
            self._take_other(datagram, connection.peer_address, connection.key)
        else:
            self._take_new_client(datagram, connection.peer_address, connection.key, client)

    def adopt(self, other: DatagramPort) -> None:
        """Take over the peers of a port whose socket is gone."""
        for key, connection in other.peers.items():
            if key not in self.peers:
                self.peers[key] = connection
                connection.port = self
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
