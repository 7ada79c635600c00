"""The public face of a connection that keeps the boundaries of datagrams: one peer of a UDP listener."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import anyio.abc
from anyio.abc import SocketAttribute

from esockd_core._connection.face import Connection

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Hashable, Iterable, Mapping

    from esockd_core._options.listener import PeerName


class DatagramConnection(Connection, anyio.abc.ObjectStream[bytes]):
    """One peer of a datagram listener, from its first datagram until nothing was heard of it for a while.

    Iterating gives its datagrams, and ends when the connection times out, is closed, or the listener drains. Datagrams
    may be lost, come twice or in another order. Those that this side drops are counted by cause in `Stats`. A task
    can be made of `receive()`; what `anext` gives can only be awaited.

    Attributes:
        datagrams_in: Datagrams received so far.
        datagrams_out: Datagrams sent so far.
        sender: Where the datagram that was received last came from, if it carries the id of this session and came from
            another address; otherwise None. See `accept_move`.
    """

    __slots__ = ()

    datagrams_in: int
    datagrams_out: int

    @property
    @abstractmethod
    def sender(self) -> PeerName | None: ...

    @property
    @abstractmethod
    def session_id(self) -> Hashable | None:
        """The id by which this session is known at whatever address its peer has; None for none.

        It is what `udp.session_id` reads in the first datagram that has one. A handler may set the id that it gave to
        its peer.

        Raises:
            InvalidOption: If an id is set that another session has.
        """

    @session_id.setter
    @abstractmethod
    def session_id(self, session_id: Hashable | None) -> None: ...

    @abstractmethod
    def accept_move(self) -> None:
        """Move the session to `sender`: what is sent from now on goes there, and the old address has lost it.

        Call it once the datagram that was just received has proved that it is from the session's peer, by its
        signature for example: a source address can be forged, and an id can be read on the way.

        Raises:
            RuntimeError: If the datagram came from the session's own address.
        """

    @abstractmethod
    async def receive(self) -> bytes:
        """Wait for the next datagram of the peer, which may be empty.

        A cancelled call loses no datagram. It goes on during a drain, which ends an iteration.

        Raises:
            anyio.EndOfStream: If nothing came from the peer for the idle timeout.
            anyio.ClosedResourceError: If this end is closed.
            anyio.BrokenResourceError: If the connection was ended by the listener.
            anyio.BusyResourceError: If another task is receiving.
        """

    @abstractmethod
    async def send(self, item: bytes) -> None:
        """Send one datagram, from the address that the peer has asked.

        It waits only while the kernel's send buffer is full. That it was sent does not mean that it arrives. What the
        kernel refuses to send, because of a firewall or a missing route, is counted in `Stats.datagrams_unsent`.

        Raises:
            DatagramTooLong: If it has more bytes than a datagram to the peer may have. The connection stays open.
            anyio.ClosedResourceError: If this end is closed, or the connection has timed out.
            anyio.BrokenResourceError: If the connection was ended by the listener.
        """

    @abstractmethod
    async def send_many(self, items: Iterable[bytes]) -> None:
        """Send several datagrams, as `send` does with each.

        Where the kernel can, those of equal size go to it in one call: at most 64, of which the last may be shorter
        (UDP GSO). That takes a small part of the time. Other tasks have their turn after each 64 datagrams.

        Raises:
            DatagramTooLong: If one has more bytes than a datagram to the peer may have. Those before it are sent.
            anyio.ClosedResourceError: If this end is closed, or the connection has timed out.
            anyio.BrokenResourceError: If the connection was ended by the listener.
        """

    @abstractmethod
    def send_many_nowait(self, items: Iterable[bytes]) -> int:
        """Send several datagrams without waiting, as `send_many` does.

        Returns:
            How many were sent. The send buffer had no room for the others, which are counted in
            `Stats.datagrams_unsent`.

        Raises:
            DatagramTooLong: If one has more bytes than a datagram to the peer may have. Those before it are sent.
            anyio.ClosedResourceError: If this end is closed, or the connection has timed out.
            anyio.BrokenResourceError: If the connection was ended by the listener.
        """

    @abstractmethod
    def send_nowait(self, data: bytes) -> None:
        """Send one datagram without waiting; as `send`, but for a full send buffer.

        Raises:
            anyio.WouldBlock: If the kernel's send buffer is full. The datagram was not sent.
            DatagramTooLong: If it has more bytes than a datagram to the peer may have.
            anyio.ClosedResourceError: If this end is closed, or the connection has timed out.
            anyio.BrokenResourceError: If the connection was ended by the listener.
        """

    async def send_eof(self) -> None:
        """Datagrams have no end that a peer could be told of.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("a datagram peer cannot be told that nothing more comes")

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """The socket attributes that AnyIO's own sockets have. The raw socket is shared by all peers."""
        attributes: dict[Any, Callable[[], Any]] = {
            SocketAttribute.family: lambda: self._raw_socket().family,
            SocketAttribute.local_address: lambda: self.sockname,
            SocketAttribute.remote_address: lambda: self.peername,
            SocketAttribute.raw_socket: self._raw_socket,
            SocketAttribute.local_port: lambda: self.sockname[1],
            SocketAttribute.remote_port: lambda: self.peername[1],
        }
        return attributes

    @abstractmethod
    def _raw_socket(self) -> socket.socket:
        """The socket of the listener.

        Raises:
            anyio.ClosedResourceError: If it is closed.
        """
