"""A rehearsal of a listener, as plain values."""

from __future__ import annotations

from dataclasses import dataclass

from esockd_core._options.changes import OptionChange
from esockd_core._options.listener import PeerName
from esockd_core._plain import PlainValue
from esockd_core._stats.state import RehearsalState


@dataclass(frozen=True, slots=True)
class RehearsedRefusal(PlainValue):
    """A client that the listener let in, and that the changed listener would have refused.

    Attributes:
        client: Its address; behind a proxy and refused at accept, the proxy's.
        stage: The counter or the shutdown reason under which it would have been counted, such as "closed_forbidden" or
            "source_forbidden".
        reason: The deciding rule or limit, in words.
        at: Seconds since the epoch.
    """

    client: PeerName
    stage: str
    reason: str
    at: float


@dataclass(frozen=True, slots=True)
class RehearsedSource(PlainValue):
    """A source whose clients the listener let in, and the changed listener would have refused.

    Attributes:
        source: An IPv4 address, an IPv6 /64, or "unix:" for all clients of Unix sockets.
        refused: How many of its clients at least.
    """

    source: str
    refused: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RehearsalReport(PlainValue):
    """A rehearsal at one moment.

    The counts are by counter or shutdown reason, as in `Stats`: "closed_forbidden", "source_max_limit" and so on.

    Attributes:
        rules: The access rules that are put before all others, in their order.
        changes: The options that differ, with old and new values. After a commit, those that it has changed.
        state: "running"; "over" if it has ended by itself; "committed" or "cancelled".
        reason: Why it ended by itself; None if it did not.
        started_at: Seconds since the epoch.
        duration: The most seconds that it lasts.
        elapsed: Seconds for which it has judged.
        seen: Clients that it has judged.
        refused: Clients that the changed listener would have refused.
        newly_refused: Those of them that the listener let in.
        newly_admitted: Clients that the listener refused, by its own counter, and the changed one would have let in.
        waiting: Clients that the changed listener would have left in the kernel's queue, with `when_full` or
            `when_limited` on "backlog".
        examples: The last clients of `newly_refused`, at most five of each kind, oldest first.
        top_sources: The sources with the most clients of `newly_refused`, at most ten, most frequent first.
        begun_again: How many worker processes have begun it again, because they took the place of others. The counts
            of those others are in it, up to a second before the end of one that was killed.
    """

    rules: tuple[str, ...]
    changes: tuple[OptionChange, ...]
    state: RehearsalState
    reason: str | None
    started_at: float
    duration: float
    elapsed: float
    seen: int
    refused: dict[str, int]
    newly_refused: dict[str, int]
    newly_admitted: dict[str, int]
    waiting: int
    examples: tuple[RehearsedRefusal, ...]
    top_sources: tuple[RehearsedSource, ...]
    begun_again: int = 0

    @property
    def remaining(self) -> float:
        """Seconds until it ends by itself; 0 once it has ended."""
        return max(0.0, self.duration - self.elapsed) if self.state == "running" else 0.0
