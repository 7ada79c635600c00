"""What the connections of one listener share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from esockd_core._connection.entrance import Waiting
from esockd_core._connection.handler import checked_handler
from esockd_core._connection.registry import Registry
from esockd_core._connection.sessions import Sessions
from esockd_core._connection.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from esockd_core._connection.driver import AnyDriver
    from esockd_core._connection.entrance import Entrance
    from esockd_core._connection.events import ConnectionEvent
    from esockd_core._connection.handler import Handler
    from esockd_core._connection.peers import SharedSocket
    from esockd_core._connection.served import ServedConnection
    from esockd_core._options.dtls import DtlsOptions
    from esockd_core._options.listener import ListenerOptions, PeerName
    from esockd_core._options.udp import PacketLimits
    from esockd_core._stats.counters import Counters
    from esockd_core._stats.log import ListenerLog


class Judge(Protocol):
    """Decides which clients are admitted; see `Admission`."""

    @property
    def packet_limits(self) -> PacketLimits | None:
        """The limits of datagrams; None for no limits."""
        ...

    def moved(self, connection: ServedConnection) -> None:
        """Count an open connection for the source of its new address."""

    def permits(self, peer: PeerName) -> bool:
        """Whether the access rules let a peer in. Count the refusal if not; it takes no place and no token."""
        ...

    def permits_source(self, source: PeerName) -> bool:
        """The same for the client that a PROXY header names."""
        ...

    def admits(self, connection: ServedConnection, peer: PeerName) -> bool:
        """Judge a connection by the peer of its socket. Take a place and count it, or count the refusal."""
        ...

    def admit_source(self, connection: ServedConnection) -> None:
        """Judge the client that a PROXY header names.

        Raises:
            EntranceRefused: If the client is not to be served.
        """


class Doorkeeper(Protocol):
    """Answers datagrams of peers that have no connection, before they may take a place."""

    def answer(self, datagram: bytes, peer: PeerName) -> bytes | None:
        """Say what to do about a datagram of a peer that the access rules let in.

        Args:
            datagram: What came.
            peer: Where it came from, which may be forged.

        Returns:
            None to let it go on to admission, or a reply to send without a connection, which may be empty for none.
        """
        ...


class DatagramEntrance(Protocol):
    """What new peers of a datagram listener pass; see `DtlsEntrance`."""

    def enter(self, connection: Any, handler_driver: Callable[[], AnyDriver]) -> None:
        """Lead a peer that was admitted to its handler."""

    def sweep(self, now: float) -> None:
        """Do what is due; called a few times a second."""

    def use(self, options: DtlsOptions) -> None:
        """Use these options for new peers."""


class Site:
    """The parts of a listener that its connections work with; each part owns what is in it.

    Attributes:
        name: The listener's name.
        options: The options in force.
        handler: The handler of new connections.
        entrance: What new connections pass before their handler; None for nothing.
        dtls: The same for a DTLS listener; None for any other.
        waiting: Connections that wait for a header or a handshake.
        registry: Admitted connections.
        watch: Connections that the sweeper looks at a few times a second.
        judge: Decides which clients are admitted.
        counters: The listener's counters.
        log: The listener's log.
        connector: Makes the connector of a client to upstreams; set by the event loop's side.
        doorkeeper: Answers datagrams before they may take a place; None for none.
        sessions: The ids of datagram sessions that survive a change of address.
        ports: The sockets of a datagram listener, with their peers; empty for streams.
        takes_new_peers: Whether a datagram listener makes connections of new peers.
        read_bytes: The most bytes that one read asks for; set when the listening sockets open.
        sets_socket_options: Whether accepted sockets need options that they do not inherit; set at the same time.
    """

    __slots__ = (
        "connector",
        "counters",
        "doorkeeper",
        "dtls",
        "entrance",
        "handler",
        "judge",
        "log",
        "name",
        "options",
        "ports",
        "read_bytes",
        "registry",
        "sessions",
        "sets_socket_options",
        "takes_new_peers",
        "waiting",
        "watch",
    )

    judge: Judge
    connector: Callable[[Any], Any]
    read_bytes: int
    sets_socket_options: bool

    def __init__(
        self,
        name: str,
        handler: Handler,
        options: ListenerOptions,
        counters: Counters,
        log: ListenerLog,
        *,
        on_event: Callable[[ConnectionEvent], None] | None = None,
    ) -> None:
        self.name = name
        self.handler = checked_handler(handler)
        self.options = options
        self.entrance: Entrance | None = None
        self.dtls: DatagramEntrance | None = None
        self.counters = counters
        self.log = log
        self.registry = Registry(name, counters, log, on_event)
        self.watch = Watch()
        self.connector = _no_connector
        self.waiting = Waiting(counters.handshakes)
        self.doorkeeper: Doorkeeper | None = None
        self.sessions = Sessions(log)
        self.ports: list[SharedSocket] = []
        self.takes_new_peers = False

    @property
    def idle_timeout(self) -> float | None:
        """Seconds without a sign of life after which a connection ends; None is no limit."""
        options = self.options
        if self.ports and options.idle_timeout is None:
            return options.udp.idle_timeout
        return options.idle_timeout


def _no_connector(connection: object) -> object:
    raise TypeError(f"only connections with a socket can be forwarded, and {connection!r} has none")
