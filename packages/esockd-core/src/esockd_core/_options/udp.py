"""Options of datagram listeners: what is held for a peer, how long it is remembered, and the socket's own options."""

from __future__ import annotations

import errno
import logging
import socket
import struct
from dataclasses import dataclass, fields
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Final

from esockd_core._checks import kept
from esockd_core._errors import InvalidOption
from esockd_core._options.special_kinds import PacketRate
from esockd_core._options.table import check_options
from esockd_core._platform.packet_info import is_wildcard
from esockd_core._platform.socket_limits import granted_buffer_bytes
from esockd_ratelimit import KeyedTokenBucket, TokenBucket

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence

    from esockd_core._options.rate import RateLike

logger = logging.getLogger("esockd_core")

BUFFERS: Final = (
    ("receive_buffer_bytes", socket.SO_RCVBUF, "net.core.rmem_max"),
    ("send_buffer_bytes", socket.SO_SNDBUF, "net.core.wmem_max"),
)


class PacketLimits:
    """Says whether one more datagram may be taken.

    Args:
        rate: Of all peers together; None is no limit.
        rate_per_peer: Of each peer; None is no limit.
    """

    __slots__ = ("_bucket", "_buckets")

    def __init__(self, rate: RateLike | None, rate_per_peer: RateLike | None) -> None:
        self._bucket = None if rate is None else TokenBucket(PacketRate().convert(rate))
        # Forged addresses may make very many keys: those that have no place share one more bucket.
        self._buckets = (
            None if rate_per_peer is None else KeyedTokenBucket(PacketRate().convert(rate_per_peer), when_full="share")
        )

    def allow(self, peer: Hashable) -> bool:
        """Take a datagram of this peer, or say that it is one too many."""
        # A peer over its own limit must not spend what all of them share.
        if self._buckets is not None and not self._buckets.try_acquire(peer):
            return False
        return self._bucket is None or self._bucket.try_acquire()


@dataclass(frozen=True, slots=True, kw_only=True)
class UdpOptions:
    """Options of a listener for datagrams and its peers.

    Attributes:
        idle_timeout: The connection of a peer ends after this many seconds without a datagram from it, unless the
            listener's own `idle_timeout` says otherwise. A peer never says that it is gone. What is sent to it does not
            count, because nobody acknowledges it. None sets no limit.
        queue_datagrams: How many datagrams of one peer are held for a handler that does not receive. Those beyond are
            dropped as `queue_full`, as are those beyond `read_buffer_bytes`.
        max_datagram_bytes: The most bytes of a datagram. Longer ones are dropped as `too_long`. The default takes all
            that UDP can carry.
        max_packet_rate: How many datagrams a second are taken from all peers together: `"10000/s"`,
            `"10000/s burst 20000"`, a number or a `Rate`. The rest are dropped as `packet_rate`. None sets no limit.
        max_packet_rate_per_peer: The same for one peer. What is over it does not spend what all peers share.
        health_check: A request and its reply. A datagram that is exactly the request, of a peer that has no connection
            and that the access rules let in, is answered at once: it makes no connection and leaves no state behind.
        session_id: A function that reads the id of a session in a datagram, or returns None. A datagram with the id of
            a session at another address then belongs to that session, and may move it there. It runs in the event
            loop, for every datagram.
        may_move: A function of the session's connection, the datagram and the new address, which says whether the
            session moves there. If it does not, the datagram is dropped as `not_moved`. Without such a function, the
            handler gets the datagram and decides: see `DatagramConnection.accept_move`.
        receive_buffer_bytes: The size of the kernel's receive buffer, which all peers share; None lets the kernel
            choose (SO_RCVBUF). The kernel doubles it for its own bookkeeping and caps it at net.core.rmem_max. What
            does not fit is dropped as `kernel_overflow`.
        send_buffer_bytes: The size of the kernel's send buffer; None lets the kernel choose (SO_SNDBUF,
            net.core.wmem_max).
        ttl: The hop limit of what is sent, 1 to 255 (IP_TTL, IPV6_UNICAST_HOPS); None is the system's setting.
        tos: The type of service or traffic class of what is sent, 0 to 255 (IP_TOS, IPV6_TCLASS); None is the system's
            setting.
        multicast: The multicast groups to join, such as "239.1.2.3" or, on a named interface, "ff15::7%eth0". The
            address has to be `udp://*:PORT`. Replies leave from an address of the interface.
        reuse_port: Let several sockets of one user share the port. The kernel gives each of them a part of the peers
            (SO_REUSEPORT).

    Raises:
        InvalidOption: If a value is not allowed.
    """

    idle_timeout: float | None = 60.0
    queue_datagrams: int = 64
    max_datagram_bytes: int = 65_535
    max_packet_rate: RateLike | None = None
    max_packet_rate_per_peer: RateLike | None = None
    health_check: tuple[bytes, bytes] | None = None
    session_id: Callable[[bytes], Hashable | None] | None = None
    may_move: Callable[[Any, bytes, Any], bool] | None = None
    receive_buffer_bytes: int | None = None
    send_buffer_bytes: int | None = None
    ttl: int | None = None
    tos: int | None = None
    multicast: Iterable[str] = ()
    reuse_port: bool = False

    def __post_init__(self) -> None:
        """Validate each value; a pair may come as a list."""
        object.__setattr__(self, "health_check", kept(self.health_check))
        groups = (self.multicast,) if isinstance(self.multicast, str) else kept(self.multicast)
        object.__setattr__(self, "multicast", groups)
        check_options("udp", self)
        for name in ("session_id", "may_move"):
            given = getattr(self, name)
            if given is not None and (not callable(given) or iscoroutinefunction(given)):
                raise InvalidOption("it takes a function that is no coroutine", option=f"udp.{name}", value=given)
        if self.may_move is not None and self.session_id is None:
            raise InvalidOption("it does nothing without session_id", option="udp.may_move", value=self.may_move)

    def require_default(self, what: str) -> None:
        """Refuse options that would silently do nothing.

        Raises:
            InvalidOption: If an option differs from its default.
        """
        for field in fields(self):
            if (value := getattr(self, field.name)) != field.default:
                raise InvalidOption(f"it does not apply to {what}", option=f"udp.{field.name}", value=value)

    def apply_before_bind(self, sock: socket.socket) -> None:
        """Set what has to precede bind(2).

        Raises:
            OSError: If the kernel refuses an option.
        """
        if self.reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, True)

    def join(self, sockets: Sequence[socket.socket]) -> None:
        """Join the groups with bound sockets, which may be members already if another program has opened them.

        Raises:
            InvalidOption: If no socket is bound to all addresses of a group's family.
            OSError: If there is no such interface, or the kernel refuses.
        """
        for group in self.multicast:
            address, _, interface = group.partition("%")
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            sock = next((each for each in sockets if each.family == family and is_wildcard(each)), None)
            if sock is None:
                reason = "no socket is bound to all addresses of its family, and others get no multicast"
                raise InvalidOption(reason, option="udp.multicast", value=group, hint="Listen on udp://*:PORT.")
            index = socket.if_nametoindex(interface) if interface else 0
            packed = socket.inet_pton(family, address)
            try:
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, packed + struct.pack("=I", index))
                else:  # ip(7): struct ip_mreqn
                    membership = packed + bytes(4) + struct.pack("=i", index)
                    sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:  # it is a member
                    raise

    def apply(self, sock: socket.socket) -> None:
        """Set what may be set at any time.

        Raises:
            OSError: If the kernel refuses an option.
        """
        for name, option, _ in BUFFERS:
            if (wanted := getattr(self, name)) is not None:
                sock.setsockopt(socket.SOL_SOCKET, option, wanted)
        is_six = sock.family == socket.AF_INET6
        level = socket.IPPROTO_IPV6 if is_six else socket.IPPROTO_IP
        if self.ttl is not None:
            sock.setsockopt(level, socket.IPV6_UNICAST_HOPS if is_six else socket.IP_TTL, self.ttl)
        if self.tos is not None:
            sock.setsockopt(level, socket.IPV6_TCLASS if is_six else socket.IP_TOS, self.tos)

    def packet_limits(self) -> PacketLimits | None:
        """New limits of datagrams; None for none."""
        if self.max_packet_rate is None and self.max_packet_rate_per_peer is None:
            return None
        return PacketLimits(self.max_packet_rate, self.max_packet_rate_per_peer)

    def warn_of_capped_buffers(self, sock: socket.socket) -> None:
        """Log a warning when the kernel gave a socket smaller buffers than asked for."""
        for name, option, setting in BUFFERS:
            wanted = getattr(self, name)
            if wanted is not None and (granted := granted_buffer_bytes(sock, option)) < wanted:
                logger.warning("%s %d is capped by the kernel to %d; raise %s", name, wanted, granted, setting)
