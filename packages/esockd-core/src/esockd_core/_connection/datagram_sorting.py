"""Where a datagram goes that is not simply the next one of a known peer.

It may be the first of a new peer, which passes the admission of the listener. It may have a PROXY header, or carry the
id of a session that has another address. A peer that is refused leaves nothing behind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from esockd_core._connection.names import name_of
from esockd_core._connection.peers import Sender, SharedSocket
from esockd_core._connection.proxied_datagrams import admits_source, key_behind, read_header
from esockd_core._stats.counters import Dropped, Refused
from esockd_core._stats.reasons import REPLACED

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from esockd_core._connection.datagram import DatagramBase
    from esockd_core._connection.entrance import ProxiedClient
    from esockd_core._connection.site import Site

CAUSES: Final = {
    Refused.EARLY: Dropped.OTHER,
    Refused.FORBIDDEN: Dropped.FORBIDDEN,
    Refused.MAX_LIMIT: Dropped.MAX_LIMIT,
    Refused.RATE_LIMITED: Dropped.RATE_LIMITED,
    Refused.OVERLOADED: Dropped.OVERLOADED,
    Refused.OTHER: Dropped.OTHER,
}


NewConnection: TypeAlias = "Callable[[SharedSocket, Any, Hashable], DatagramBase]"
"""Makes the connection of a peer that was not judged yet, from the port, its address and its key."""


class Arrivals(Protocol):
    """Makes connections of new peers, on one event loop."""

    new_connection: NewConnection

    def begin(self, connection: DatagramBase) -> None:
        """Register a connection that was admitted, and start its next driver."""


class DatagramSorting(SharedSocket):
    """Gives the datagrams of a socket to the connections of its peers; `DatagramPort` takes them from the socket.

    Args:
        site: The parts of the listener.
        arrivals: Makes connections of new peers.

    Attributes:
        peers: Connections by what their datagrams are known by.
    """

    __slots__ = ("_arrivals", "_site", "peers")

    def __init__(self, site: Site, arrivals: Arrivals) -> None:
        self._site = site
        self._arrivals = arrivals
        self.peers: dict[Hashable, DatagramBase] = {}

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
        if not site.judge.admits(connection, connection.socket_peername):
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

    def start_anew(self, connection: DatagramBase, datagram: bytes) -> None:
        """End a connection, because its peer has started again with this datagram, and let that arrive."""
        connection.abort(REPLACED)
        client = connection.client
        if client is None:
            self._take_other(datagram, connection.peer_address, connection.key)
        else:
            self._take_new_client(datagram, connection.peer_address, connection.key, client)
