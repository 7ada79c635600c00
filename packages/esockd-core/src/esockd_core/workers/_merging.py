"""Numbers of several workers as those of one listener."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from esockd_core._stats.counters import Stats
from esockd_core._stats.histogram import NO_DURATIONS, Durations
from esockd_core._stats.top_sources import TopSource
from esockd_core.workers._counters import NAMES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from esockd_core.workers._counters import SlotCounters

NO_STATS: Final = Stats(
    accepted=0,
    closed_early=0,
    closed_forbidden=0,
    closed_max_limit=0,
    closed_rate_limited=0,
    closed_overloaded=0,
    closed_other_reasons=0,
    closed_sys_limit=0,
    current_connections=0,
    max_connections=None,
    bytes_in=0,
    bytes_out=0,
    shutdown_counts={},
    entering=0,
    accept_queue_length=None,
    accept_queue_limit=None,
    loop_lag=0.0,
    loop_lags=NO_DURATIONS,
    accept_delays=NO_DURATIONS,
    handshakes=NO_DURATIONS,
)


def merge_durations(one: Durations, other: Durations) -> Durations:
    """The durations of both."""
    counts = tuple(a + b for a, b in zip(one.counts, other.counts, strict=True))
    return Durations(counts, one.total + other.total, one.bounds)


def merge_reasons(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    """The counts of both."""
    return one | {reason: one.get(reason, 0) + count for reason, count in other.items()}


def merge_stats(many: Iterable[Stats]) -> Stats:
    """The counters of several workers together; the lag is the longest of them."""
    merged = NO_STATS
    for each in many:
        sums: dict[str, Any] = {name: getattr(merged, name) + getattr(each, name) for name in NAMES}
        merged = replace(
            merged,
            **sums,
            current_connections=merged.current_connections + each.current_connections,
            shutdown_counts=merge_reasons(merged.shutdown_counts, each.shutdown_counts),
            entering=merged.entering + each.entering,
            loop_lag=max(merged.loop_lag, each.loop_lag),
            loop_lags=merge_durations(merged.loop_lags, each.loop_lags),
            accept_delays=merge_durations(merged.accept_delays, each.accept_delays),
            handshakes=merge_durations(merged.handshakes, each.handshakes),
            lifetimes=merge_durations(merged.lifetimes, each.lifetimes),
        )
    return merged


def with_counters(known: Stats, slot: SlotCounters) -> Stats:
    """What a worker last told, with the counters of its slot, which are never late.

    Args:
        known: What it last told.
        slot: Its slot.
    """
    counts: dict[str, Any] = dict(zip(NAMES, slot.words.tolist(), strict=False))
    reasons = slot.reasons()
    # Bytes of open connections are in what it told only.
    counts["bytes_in"] = max(counts["bytes_in"], known.bytes_in)
    counts["bytes_out"] = max(counts["bytes_out"], known.bytes_out)
    current = max(0, counts["accepted"] - sum(reasons.values()))
    return replace(known, **counts, shutdown_counts=reasons, current_connections=current)


def ended(known: Stats, reason: str) -> Stats:
    """The counters of a worker that has ended; its open connections ended for this reason."""
    lost = known.current_connections
    reasons = merge_reasons(known.shutdown_counts, {reason: lost}) if lost else known.shutdown_counts
    return replace(known, current_connections=0, entering=0, loop_lag=0.0, shutdown_counts=reasons)


def merge_top_sources(many: Iterable[Iterable[TopSource]], most: int) -> tuple[TopSource, ...]:
    """The sources that come most often over several workers."""
    merged: dict[str, TopSource] = {}
    for each in (source for sources in many for source in sources):
        known = merged.get(each.source, TopSource(each.source, 0, 0))
        merged[each.source] = TopSource(
            each.source, known.attempts + each.attempts, known.open_connections + each.open_connections
        )
    return tuple(sorted(merged.values(), key=lambda each: -each.attempts)[:most])
