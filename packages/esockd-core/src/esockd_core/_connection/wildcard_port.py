"""A datagram socket that is bound to every address of the machine: replies leave from the one that the peer has asked.

A peer that asks two of them has two connections, as over TCP.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from esockd_core._connection.port import LONGEST, DatagramPort
from esockd_core._connection.proxied_datagrams import own_key
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
    from collections.abc import Sequence

    from esockd_core._options.listener import PeerName


class WildcardPort(DatagramPort):
    """A socket bound to every address; a peer is known by its own address and by the one that it has asked."""

    __slots__ = ("_recvmsg", "_sendmsg")

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
        peers, recvmsg = self.peers, self._recvmsg
        size = self._site.options.udp.max_datagram_bytes + 1
        limits = self._site.judge.packet_limits
        options = self._site.options
        is_special = options.udp.session_id is not None or options.proxy is not None
        if options.proxy is not None:
            size = LONGEST
        batch, taken = self._batch, 0
        try:
            while taken < batch:
                datagram, ancillary, _, address = recvmsg(size, ANCILLARY_BYTES)
                taken += 1
                key = (address, local_address_of(ancillary))
                connection = peers.get(key)
                if is_special:
                    self._take_special(datagram, address, key)
                elif connection is None or len(datagram) == size:
                    self._take_other(datagram, address, key)
                elif limits is not None and not limits.allow(address):
                    self._site.counters.count_dropped(Dropped.PACKET_RATE)
                else:
                    connection.received(datagram)
        except OSError as error:
            self._stopped(error, taken)
        finally:
            self._site.counters.datagrams_in += taken
        return taken

    def _way_to(self, address: Any, key: Any) -> Any:
        return address, send_from(own_key(key)[1])

    def local_name(self, key: Any) -> PeerName:
        """The address that a peer has asked."""
        local = own_key(key)[1]
        return (text_of_local_address(local), self.bound[1]) if local else super().local_name(key)
