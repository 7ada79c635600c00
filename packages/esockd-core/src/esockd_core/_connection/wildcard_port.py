"""A datagram socket that is bound to every address of the machine: replies leave from the one that the peer has asked.

A peer that asks two of them has two connections, as over TCP.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from esockd_core._connection.names import unmapped
from esockd_core._connection.port import DatagramPort
from esockd_core._connection.proxied_datagrams import own_key
from esockd_core._platform.datagram_batch import NAME_BYTES, address_in, ancillary_in
from esockd_core._platform.packet_info import (
    ANCILLARY_BYTES,
    local_address_of,
    send_from,
    text_of_local_address,
)
from esockd_core._platform.segmentation import segments_of
from esockd_core._stats.counters import Dropped

if TYPE_CHECKING:
    import socket
    from collections.abc import Hashable, Sequence

    from esockd_core._options.listener import PeerName


class WildcardPort(DatagramPort):
    """A socket bound to every address; a peer is known by its own address and by the one that it has asked."""

    __slots__ = ("_recvmsg", "_sendmsg")

    _ancillary_bytes = ANCILLARY_BYTES

    def use(self, sock: socket.socket) -> None:
        """Read from and send by this socket from now on."""
        super().use(sock)
        self._recvmsg = sock.recvmsg
        self._sendmsg = sock.sendmsg
        self.sendto = self._send_from

    def _send_from(self, datagram: bytes, address: Any) -> int:
        peer, ancillary = address
        return self._sendmsg([datagram], ancillary, 0, peer)

    def send_train(self, datagrams: Sequence[bytes], address: Any) -> None:
        peer, ancillary = address
        self._sendmsg(datagrams, [*ancillary, segments_of(len(datagrams[0]))], 0, peer)

    def on_readable(self) -> int:
        site = self._site
        if site.options is not self._options:
            self._follow(site.options)
        if self._many is not None and self._budget > 1:
            return self._take_many(self._many)
        peers, recvmsg, size, most_bytes = self.peers, self._recvmsg, self._read_bytes, self._most_bytes
        is_special, limits = self._is_special, site.judge.packet_limits
        budget, taken = self._budget, 0
        try:
            while taken < budget:
                datagram, ancillary, _, address = recvmsg(size, ANCILLARY_BYTES)
                taken += 1
                key = (address, local_address_of(ancillary))
                connection = peers.get(key)
                if is_special:
                    self._take_special(datagram, address, key)
                elif connection is None or len(datagram) > most_bytes:
                    self._take_other(datagram, address, key)
                elif limits is not None and not limits.allow(address):
                    site.counters.count_dropped(Dropped.PACKET_RATE)
                else:
                    connection.received(datagram)
        except OSError as error:
            self._stopped(error, taken)
        else:
            self._took_all(budget)
        finally:
            site.counters.datagrams_in += taken
        return taken

    def _sender_in(self, origin: bytes) -> tuple[Any, Hashable]:
        address = address_in(origin)
        return address, (address, local_address_of(ancillary_in(origin, NAME_BYTES[self.family])))

    def _way_to(self, address: Any, key: Any) -> Any:
        return address, send_from(own_key(key)[1])

    def local_name(self, key: Any) -> PeerName:
        """The address that a peer has asked."""
        local = own_key(key)[1]
        return (unmapped(text_of_local_address(local)), self.bound[1]) if local else super().local_name(key)
