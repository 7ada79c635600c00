"""A socket that many peers share, as their connections and their listener see it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Hashable, Sequence

    from esockd_core._options.listener import PeerName


class Sender(NamedTuple):
    """Where a datagram came from that belongs to a session at another address.

    Attributes:
        port: The socket that it came to.
        address: Its address, as the kernel tells it.
        key: What its datagrams are known by there.
        size: How many bytes the datagram has.
    """

    port: SharedSocket
    address: Any
    key: Hashable
    size: int


class SharedSocket(ABC):
    """One socket of a datagram listener; see `DatagramPort`.

    Attributes:
        sock: The socket that is read from and sent by.
        sendto: Gives a datagram for an address to the kernel.
        takes_trains: Whether `send_train` works.
    """

    __slots__ = ()

    sock: socket.socket
    sendto: Callable[[bytes, Any], int]
    takes_trains: bool

    @abstractmethod
    def send_train(self, datagrams: Sequence[bytes], address: Any) -> None:
        """Give several datagrams for an address to the kernel, which takes all of them or none; see `trains`.

        Raises:
            OSError: If it takes none.
        """

    @abstractmethod
    def forget(self, connection: Any, key: Hashable) -> None:
        """The next datagram of this peer is that of a new one."""

    @abstractmethod
    def start_anew(self, connection: Any, datagram: bytes) -> None:
        """End a connection, because its peer has started again with this datagram, and let that arrive."""

    @abstractmethod
    def move(self, connection: Any, sender: Sender) -> None:
        """Give a session to another address, from which one of its datagrams came."""

    @abstractmethod
    def local_name(self, key: Hashable) -> PeerName:
        """The address that a peer has asked."""

    @abstractmethod
    async def wait_writable(self) -> None:
        """Return when there may be room in the send buffer."""

    @abstractmethod
    def look_at_kernel(self) -> None:
        """Count the datagrams that the kernel has dropped since the last look."""
