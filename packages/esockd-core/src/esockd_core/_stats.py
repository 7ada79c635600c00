"""What a listener counts: live counters, the snapshot a program reads, and the last refused sockets."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from esockd_core._histogram import Durations, Histogram
from esockd_core._top_sources import TopSources

MAX_SHUTDOWN_REASONS: Final = 32  # a handler may invent reasons; the table of them stays bounded
OTHER: Final = "other"
UPGRADE_FAILURES: Final = ("proxy_invalid", "proxy_timeout", "tls_failed", "handshake_timeout")


class Refused(StrEnum):
    """Why an accepted socket was closed before a handler saw it; each value names its counter."""

    EARLY = "closed_early"
    FORBIDDEN = "closed_forbidden"
    MAX_LIMIT = "closed_max_limit"
    RATE_LIMITED = "closed_rate_limited"
    OVERLOADED = "closed_overloaded"
    OTHER = "closed_other_reasons"


@dataclass(frozen=True, slots=True)
class Refusal:
    """One refused socket.

    Attributes:
        peer: The peer's address as the kernel gave it, None where it was gone already.
        stage: The stage of admission that refused it.
        reason: The deciding rule, limit or hook in words.
        at: Seconds since the epoch.
    """

    peer: tuple[str, int] | str | None
    stage: Refused
    reason: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """A snapshot of one listener.

    Every socket that accept(2) returned is in exactly one of `accepted` and the `closed_*` counters, except
    `closed_sys_limit`, which counts failed calls of accept(2). Every admitted connection that ended is in exactly one
    entry of `shutdown_counts`.

    Attributes:
        accepted: Sockets admitted.
        closed_early: Sockets whose peer was gone when they were accepted.
        closed_forbidden: Sockets that an access rule refused.
        closed_max_limit: Sockets refused for want of room, over all peers or for their source.
        closed_rate_limited: Sockets refused by a rate limit.
        closed_overloaded: Sockets refused because the event loop lagged or the user's hook said so.
        closed_other_reasons: Sockets that failed while they were being set up.
        closed_sys_limit: Calls of accept(2) that failed for want of descriptors or memory.
        current_connections: Admitted connections that have not ended.
        max_connections: The bound on `current_connections`, None for none.
        bytes_in: Bytes received from peers, over all connections since the listener's name was first opened.
        bytes_out: Bytes handed over for sending, likewise.
        shutdown_counts: Ended connections by reason, at most 32 reasons and "other".
        upgrading: Connections among them that wait for a PROXY header or are in a TLS handshake.
        accept_queue_length: Clients that wait in the kernel to be accepted; None for Unix sockets, and when closed.
        accept_queue_limit: How many may, before the kernel turns clients away.
        loop_lag_s: How late the event loop last woke the listener, in seconds.
        loop_lags: Every such lateness.
        accept_delays: From a connection's admission, or the end of its upgrades, until its handler ran. Callback
            handlers are called at once and not counted; of very many, on asyncio and uvloop, it is a sample.
        handshakes: Every TLS handshake that succeeded.
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
    upgrading: int
    accept_queue_length: int | None
    accept_queue_limit: int | None
    loop_lag_s: float
    loop_lags: Durations
    accept_delays: Durations
    handshakes: Durations

    @property
    def refused(self) -> int:
        """Sockets that were closed before they became connections."""
        return sum(getattr(self, stage) for stage in Refused)

    @property
    def handshake_failures(self) -> dict[str, int]:
        """Connections whose PROXY header or TLS handshake failed, by reason."""
        return {reason: self.shutdown_counts[reason] for reason in UPGRADE_FAILURES if reason in self.shutdown_counts}


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
    sources: TopSources = field(default_factory=TopSources)
    loop_lags: Histogram = field(default_factory=Histogram)
    accept_delays: Histogram = field(default_factory=Histogram)
    handshakes: Histogram = field(default_factory=Histogram)
    refusals: deque[Refusal] = field(default_factory=lambda: deque(maxlen=256))

    def count_refused(self, stage: Refused) -> None:
        """Count one refused socket under its stage."""
        setattr(self, stage, getattr(self, stage) + 1)

    def count_end(self, reason: str) -> None:
        """Count one ended connection under its reason."""
        counts = self.shutdown_counts
        if reason not in counts and len(counts) >= MAX_SHUTDOWN_REASONS and reason not in UPGRADE_FAILURES:
            reason = OTHER
        counts[reason] = counts.get(reason, 0) + 1
