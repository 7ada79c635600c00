"""A datagram connection: everything about one peer that is the same on every event loop.

An event loop adds how a task waits for the next datagram and for room in the send buffer, and how a handler runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from anyio import BrokenResourceError, ClosedResourceError, EndOfStream

from esockd_core._connection.datagram_sending import DatagramLayer, DatagramSending
from esockd_core._connection.driven import check_reason, consists_of
from esockd_core._connection.names import name_of, text_of_name
from esockd_core._errors import InvalidOption
from esockd_core._stats.reasons import ABORTED, IDLE_TIMEOUT, NORMAL, RESET

if TYPE_CHECKING:
    import socket
    from collections.abc import Hashable

    from esockd_core._connection.driver import AnyDriver
    from esockd_core._connection.peers import SharedSocket
    from esockd_core._connection.site import Site
    from esockd_core._options.listener import PeerName
    from esockd_core._stats.counters import Counters
    from esockd_core._tls.facts import TlsInfo


class DatagramBase(DatagramSending):
    """One peer of a datagram listener and its driver.

    Args:
        site: The parts of the listener that its connections share.
        driver: The first driver.
        port: The socket that it came to.
        address: Where its datagrams come from.
        key: What its datagrams are known by among the peers of the port.

    Attributes:
        layer: Takes the datagrams of the peer in place of the driver; None for none.
        port: The socket that it came to.
        peer_address: Where its datagrams come from, as the kernel tells it.
        address: Where those to it go, as the port takes it.
        key: What its datagrams are known by among the peers of the port.
        origin: The same as the kernel packs it, once the port has taken several datagrams at a time; until then, None.
    """

    __slots__ = (
        "_session_id",
        "address",
        "datagrams_out",
        "key",
        "layer",
        "origin",
        "peer_address",
        "port",
        "socket_peername",
    )

    def __init__(self, site: Site, driver: AnyDriver, port: SharedSocket, address: Any, key: Hashable) -> None:
        DatagramSending.__init__(self, site, driver)
        self.port = port
        self.address = self.peer_address = address
        self.key = key
        self.origin: bytes | None = None
        self.layer: DatagramLayer | None = None
        self.socket_peername = name_of(address)
        self._session_id: Hashable | None = None
        self.datagrams_out = 0

    # Its peer

    def received(self, datagram: bytes) -> None:
        """The peer sent a datagram."""
        if self.layer is not None:
            self.layer.received(self, datagram)
        else:
            self.deliver(datagram)

    @property
    def sender(self) -> PeerName | None:
        return None if self._sender is None else name_of(self._sender.address)

    def accept_move(self) -> None:
        sender = self._sender
        if sender is None:
            raise RuntimeError("the datagram that was received last came from the session's own address")
        self._sender = None
        self._foreign -= 1 + sender.size
        if not self._closing:
            sender.port.move(self, sender)

    @property
    def session_id(self) -> Hashable | None:
        return self._session_id

    @session_id.setter
    def session_id(self, session_id: Hashable | None) -> None:
        owners = self._site.sessions.owners
        if session_id is not None and owners.get(session_id, self) is not self:
            raise InvalidOption("another session has it", option="session_id", value=session_id)
        if self._session_id is not None:
            owners.pop(self._session_id, None)
        self._session_id = session_id
        if session_id is not None and not self._closing:
            owners[session_id] = self

    # Its end

    def reason_for(self, error: BaseException) -> str:
        """The reason that a handler's exception counts under. Only errors of its own are logged."""
        # A handler need not catch that its peer is silent, or that somebody closed the connection.
        if self._closing and consists_of(error, (BrokenResourceError, ClosedResourceError, EndOfStream)):
            return RESET if self._error is not None else NORMAL
        return self._site.registry.handler_failed(self, error)

    def _handler_ended(self, reason: str, cancelled: bool = False) -> None:
        self.note_reason(reason)
        if not cancelled:
            self.close_nowait()
        elif not self._closing:
            self._leave()  # without a goodbye: the peer is not to take this for a whole exchange
        self.ended(reason)

    def ended(self, reason: str) -> None:
        if self.id:
            self._site.registry.ended(self, self._reason or reason)

    def add_totals(self, counters: Counters) -> None:
        self._drop_unread()
        super().add_totals(counters)
        counters.datagrams_delivered += self.datagrams_taken()
        counters.datagrams_out += self.datagrams_out

    def close_nowait(self, reason: str = NORMAL) -> None:
        check_reason(reason)
        if reason != NORMAL:
            self.note_reason(reason)
        if not self._closing:
            if self.layer is not None:
                self.layer.close(self)
            self._leave()

    def _leave(self, *, keeps_queue: bool = False) -> None:
        """Leave the port: the next datagram of the peer is that of a new one."""
        self._closing = self._lost = True
        self.port.forget(self, self.key)
        if self._session_id is not None:
            self._site.sessions.owners.pop(self._session_id, None)
        if not keeps_queue:
            self._drop_unread()
        self._site.watch.socket_lost(self)
        if self._receiver is not None:
            self._wake_receiver()
        self.driver.lost(self, False)

    def peer_finished(self, reason: str = NORMAL) -> None:
        """Nothing more comes from the peer. What has come can still be received; then the stream ends."""
        if not self._closing:
            if reason != NORMAL:
                self.note_reason(reason)
            self._finished = True
            self._leave(keeps_queue=True)

    def fail(self, error: Exception) -> None:
        """End the connection because of an error."""
        self._error = self._error or error
        if not self._closing:
            self._leave()

    def abort(self, reason: str = ABORTED) -> None:
        check_reason(reason)
        if reason == IDLE_TIMEOUT:  # the only way in which a silent peer ends
            self.peer_finished(reason)
            return
        self.note_reason(reason)
        if reason != ABORTED and self._error is None:
            self._error = ConnectionAbortedError(f"aborted by the listener: {reason}")
        if not self._closing:
            self._leave()

    def cut_short(self, reason: str) -> None:
        self.abort(reason)

    def close_socket(self) -> None:
        if not self._closing:
            self._leave()

    # What its listener looks at

    def signs_of_life(self) -> int:
        return self.bytes_in + self.datagrams_in - self._foreign  # an empty datagram is one

    # Sent datagrams say nothing about the peer: its idle time looks at what came from it, and empty datagrams count.
    def wire_bytes_out(self) -> int:
        return self.datagrams_in - self._foreign

    def taken_bytes(self) -> int:
        return self.datagrams_in - self._foreign

    def undelivered_bytes(self) -> int:
        return 0

    def has_unread_input(self) -> bool:
        return False  # datagrams are taken as they come, whether the handler receives or not

    @property
    def tls(self) -> TlsInfo | None:
        if self.layer is not None:
            return self.layer.info
        return None if self.client is None else self.client.tls

    @property
    def sockname(self) -> PeerName:  # type: ignore[override]
        return self.port.local_name(self.key)

    def _raw_socket(self) -> socket.socket:
        return self.port.sock

    def __repr__(self) -> str:
        peer = text_of_name(self.peername) if self.id else "a peer that was not admitted"
        moved = f"{self.datagrams_in} datagrams in, {self.datagrams_out} out"
        return f"<DatagramConnection {self.id} of {self._site.name!r} from {peer}: {self.state}, {moved}>"
