"""The counters of a listener, the snapshot that a program reads, and the last refused sockets."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from errno import errorcode
from typing import TYPE_CHECKING, Final, TypeVar

from esockd_core._plain import PlainValue
from esockd_core._stats.histogram import LIFETIME_BOUNDS_S, NO_LIFETIMES, Durations, Histogram
from esockd_core._stats.reasons import ENTRANCE_FAILURES, OWN_REASONS
from esockd_core._stats.top_sources import TopSources

if TYPE_CHECKING:
    from collections.abc import MutableMapping

MAX_INVENTED_REASONS: Final = 32  # by handlers; the table of reasons stays bounded
OTHER: Final = "other"
MOST_CLOSED: Final = 1_000  # closed listeners whose counters are kept: a program may invent names without end

K = TypeVar("K")
V = TypeVar("V")


class Dropped(StrEnum):
    """Why a datagram reached no handler."""

    FORBIDDEN = "forbidden"
    """An access rule refused its peer."""
    MAX_LIMIT = "max_limit"
    """There was no room for its peer, among all or among those of its source."""
    RATE_LIMITED = "rate_limited"
    """A rate of new peers was exceeded."""
    OVERLOADED = "overloaded"
    """The event loop lagged, or the user's hook said so."""
    OTHER = "other"
    """Its peer could not be judged."""
    SUSPENDED = "suspended"
    """It came from a new peer while the listener was suspended or draining."""
    PACKET_RATE = "packet_rate"
    """There were more datagrams than `udp.max_packet_rate` or `udp.max_packet_rate_per_peer` allows."""
    QUEUE_FULL = "queue_full"
    """Its handler does not receive as fast as the peer sends."""
    PROXY_INVALID = "proxy_invalid"
    """It came from a proxy without a valid PROXY header."""
    NOT_MOVED = "not_moved"
    """It has the id of a session at another address, and the program did not let it move."""
    TOO_LONG = "too_long"
    """It is longer than `udp.max_datagram_bytes`."""
    UNREAD = "unread"
    """Its connection ended before the handler received it."""
    DTLS = "dtls"
    """It was a part of DTLS itself, such as of a handshake, or not genuine."""
    KERNEL_OVERFLOW = "kernel_overflow"
    """The kernel dropped it, mostly because its receive buffer was full."""


class Refused(StrEnum):
    """Why an accepted socket was closed before a handler saw it; each value names its counter."""

    EARLY = "closed_early"
    FORBIDDEN = "closed_forbidden"
    MAX_LIMIT = "closed_max_limit"
    RATE_LIMITED = "closed_rate_limited"
    OVERLOADED = "closed_overloaded"
    OTHER = "closed_other_reasons"

    __hash__ = str.__hash__  # Enum's own is written in Python, and takes as long as judging a client


@dataclass(frozen=True, slots=True)
class Refusal(PlainValue):
    """One refused socket.

    Attributes:
        peer: The peer's address as the kernel gave it. Peers that had already left are only counted, never listed.
        stage: The stage of admission that refused it.
        reason: The deciding rule, limit or hook, in words.
        at: Seconds since the epoch.
    """

    peer: tuple[str, int] | str | None
    stage: Refused
    reason: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats(PlainValue):
    """A snapshot of one listener.

    Every socket that accept(2) returned is in exactly one of `accepted` and the `closed_*` counters, except
    `closed_sys_limit`, which counts failed calls of accept(2). Every admitted connection that ended is in exactly one
    entry of `shutdown_counts`.

    The arrival of a datagram peer, which is its first datagram, counts as an accepted socket does. Every datagram in
    `datagrams_in` is either delivered, waiting or answered, or in exactly one entry of `datagrams_dropped`.

    Attributes:
        accepted: Sockets admitted.
        closed_early: Sockets whose peer was gone when they were accepted, as port checks are; nobody refused them.
        closed_forbidden: Sockets that an access rule refused.
        closed_max_limit: Sockets refused because there was no room, for all peers or for their source.
        closed_rate_limited: Sockets refused by a rate limit.
        closed_overloaded: Sockets refused because the event loop lagged or the user's hook said so.
        closed_other_reasons: Sockets that failed while they were being set up.
        closed_sys_limit: Calls of accept(2) that failed because descriptors or memory ran out.
        current_connections: Admitted connections that have not ended.
        max_connections: The bound on `current_connections`, None for none.
        bytes_in: Bytes received from peers, over all connections since the listener's name was first opened.
        bytes_out: Bytes handed over for sending, over the same connections.
        shutdown_counts: Ended connections by reason: this package's own, at most 32 of handlers, and "other".
        entering: Connections that wait for a PROXY header or are in a TLS handshake.
        accept_queue_length: Clients that wait in the kernel to be accepted; None if closed, or if the kernel does not
            tell.
        accept_queue_limit: How many may wait before the kernel turns clients away.
        loop_lag: How late the event loop last woke the listener, in seconds.
        loop_lags: All of these lags.
        accept_delays: The time from a connection's admission, or the end of its entrance, until its handler ran.
            Callback handlers are called at once and not counted. With very many connections, on asyncio and uvloop,
            these are samples.
        handshakes: The durations of the TLS handshakes that succeeded.
        lifetimes: How long ended connections had lasted, from their admission on.
        datagrams_in: Datagrams that came to the sockets of a datagram listener, with those that the kernel dropped.
        datagrams_out: Datagrams that were sent.
        datagrams_delivered: Those of `datagrams_in` that handlers received.
        datagrams_waiting: Those that wait for their handler to receive them.
        datagrams_answered: Those that were answered without a connection, as health checks are.
        datagrams_dropped: The others, by cause; see `Dropped`.
        datagrams_unsent: Datagrams that the kernel refused to send, by the name of its error, such as EPERM. Among them
            are those that a forwarder lost: ECONNREFUSED is an upstream where nobody listens, and ENOBUFS stands for
            those of upstreams that did not fit into a receive buffer.
    """

    accepted: int
    closed_early: int
    closed_forbidden: int
    closed_max_limit: int
    closed_rate_limited: int
    closed_overloaded: int
    closed_other_reasons: int
    closed_sys_limit: int
    current_connections: int
    max_connections: int | None
    bytes_in: int
    bytes_out: int
    shutdown_counts: dict[str, int]
    entering: int
    accept_queue_length: int | None
    accept_queue_limit: int | None
    loop_lag: float
    loop_lags: Durations
    accept_delays: Durations
    handshakes: Durations
    lifetimes: Durations = NO_LIFETIMES
    datagrams_in: int = 0
    datagrams_out: int = 0
    datagrams_delivered: int = 0
    datagrams_waiting: int = 0
    datagrams_answered: int = 0
    datagrams_dropped: dict[str, int] = field(default_factory=dict)
    datagrams_unsent: dict[str, int] = field(default_factory=dict)

    @property
    def refused(self) -> int:
        """Sockets that were closed before they became connections, without those whose peer had left by then."""
        return sum(getattr(self, stage) for stage in Refused if stage is not Refused.EARLY)

    @property
    def handshake_failures(self) -> dict[str, int]:
        """Connections whose PROXY header or TLS handshake failed, by reason."""
        return {reason: self.shutdown_counts[reason] for reason in ENTRANCE_FAILURES if reason in self.shutdown_counts}


@dataclass(slots=True)
class Counters:
    """The live numbers behind `Stats`; they belong to a listener's name and survive its reopening."""

    accepted: int = 0
    closed_early: int = 0
    closed_forbidden: int = 0
    closed_max_limit: int = 0
    closed_rate_limited: int = 0
    closed_overloaded: int = 0
    closed_other_reasons: int = 0
    closed_sys_limit: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    shutdown_counts: dict[str, int] = field(default_factory=dict)
    datagrams_in: int = 0
    datagrams_out: int = 0
    datagrams_delivered: int = 0
    datagrams_answered: int = 0
    datagrams_dropped: dict[str, int] = field(default_factory=dict)
    datagrams_unsent: dict[str, int] = field(default_factory=dict)
    sources: TopSources = field(default_factory=TopSources)
    loop_lags: Histogram = field(default_factory=Histogram)
    accept_delays: Histogram = field(default_factory=Histogram)
    handshakes: Histogram = field(default_factory=Histogram)
    lifetimes: Histogram = field(default_factory=lambda: Histogram(LIFETIME_BOUNDS_S))
    refusals: deque[Refusal] = field(default_factory=lambda: deque(maxlen=256))
    _invented: int = 0

    def count_refused(self, stage: Refused) -> None:
        """Count one refused socket under its stage."""
        setattr(self, stage, getattr(self, stage) + 1)

    def count_dropped(self, cause: Dropped, number: int = 1) -> None:
        """Count datagrams that reach no handler."""
        self.datagrams_dropped[cause] = self.datagrams_dropped.get(cause, 0) + number

    def count_unsent(self, error: OSError, number: int = 1) -> None:
        """Count datagrams that the kernel refused to send."""
        name = errorcode.get(error.errno or 0, "unknown")
        self.datagrams_unsent[name] = self.datagrams_unsent.get(name, 0) + number

    def count_end(self, reason: str) -> None:
        """Count one ended connection under its reason."""
        counts = self.shutdown_counts
        if reason in counts:
            counts[reason] += 1
            return
        if reason not in OWN_REASONS:
            if self._invented >= MAX_INVENTED_REASONS:
                reason = OTHER
            else:
                self._invented += 1
        counts[reason] = counts.get(reason, 0) + 1


def keep(closed: MutableMapping[K, V], key: K, counters: V) -> None:
    """Keep the counters of a listener that has closed for the next one of its key, and forget the oldest beyond 1,000.

    Args:
        closed: Those of closed listeners, in the order in which they closed.
        key: The listener's key.
        counters: Its counters.
    """
    closed.pop(key, None)
    closed[key] = counters
    if len(closed) > MOST_CLOSED:
        del closed[next(iter(closed))]
