"""One rehearsal over all workers, as their parent knows it."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import anyio

from esockd_core._admission.shadow import EXAMPLES
from esockd_core._listening.rehearsing import TOP
from esockd_core.control.rehearsal import RehearsalReport, RehearsedRefusal, RehearsedSource
from esockd_core.workers._merging import merge_reasons

if TYPE_CHECKING:
    from collections.abc import Iterable

    from esockd_core._admission.rehearsed_changes import RehearsedChanges
    from esockd_core._stats.state import RehearsalState


@dataclass(slots=True)
class WorkerRehearsal:
    """The part of one process in a rehearsal. An answer that comes late is of the rehearsal that was asked about.

    Attributes:
        whole: The rehearsal.
        report: What the process last told of it; None before the first time.
    """

    whole: SharedRehearsal
    report: RehearsalReport | None = None


class SharedRehearsal:
    """A rehearsal in which every worker judges its own clients by limits that all imagined listeners share.

    Args:
        changes: What it would change.
        duration: The most seconds that it lasts.

    Attributes:
        changes: What it would change.
        duration: The most seconds that it lasts.
        state: Its state.
        begun_again: How many processes have begun it in the place of others.
        last: The report of its end; None as long as nobody has asked for it.
    """

    def __init__(self, changes: RehearsedChanges, duration: float) -> None:
        self.changes = changes
        self.duration = duration
        self.state: RehearsalState = "running"
        self.begun_again = 0
        self.last: RehearsalReport | None = None
        self._reason: str | None = None
        self._started_at = time.time()
        self._began_s = anyio.current_time()
        self._ended_s: float | None = None
        self._left: tuple[RehearsalReport, ...] = ()  # of processes that have ended, put together

    @property
    def elapsed_s(self) -> float:
        """For how long it has judged."""
        now_s = anyio.current_time() if self._ended_s is None else self._ended_s
        return min(now_s - self._began_s, self.duration)

    @property
    def is_running(self) -> bool:
        """Whether it judges."""
        return self.state == "running" and self.elapsed_s < self.duration

    def end(self, state: RehearsalState, reason: str | None = None) -> None:
        """Note that it judges no more."""
        if self._ended_s is None:
            self._ended_s = anyio.current_time()
        self.state = state
        self._reason = reason or self._reason

    def look_at_time(self) -> None:
        """End it if its time is over."""
        if self.state == "running" and not self.is_running:
            self.end("over", f"its {self.duration:g} seconds have passed")

    def keep(self, report: RehearsalReport) -> None:
        """Keep what a process told before it ended."""
        self._left = (self._merged([report]),)

    def report(self, told: Iterable[RehearsalReport | None]) -> RehearsalReport:
        """The rehearsal at this moment. Once it has ended, this is its last report.

        Args:
            told: What the workers tell.
        """
        report = self._merged(each for each in told if each is not None)
        if self.state != "running":
            self.last = report
        return report

    def _merged(self, told: Iterable[RehearsalReport]) -> RehearsalReport:
        reports = (*self._left, *told)
        return RehearsalReport(
            rules=self.changes.rules,
            changes=self.changes.differences,
            state=self.state,
            reason=self._reason,
            started_at=self._started_at,
            duration=self.duration,
            elapsed=self.elapsed_s,
            seen=sum(each.seen for each in reports),
            refused=_sums(each.refused for each in reports),
            newly_refused=_sums(each.newly_refused for each in reports),
            newly_admitted=_sums(each.newly_admitted for each in reports),
            waiting=sum(each.waiting for each in reports),
            examples=_last(example for each in reports for example in each.examples),
            top_sources=_most(source for each in reports for source in each.top_sources),
            begun_again=self.begun_again,
        )


def _sums(many: Iterable[dict[str, int]]) -> dict[str, int]:
    return reduce(merge_reasons, many, {})


def _last(examples: Iterable[RehearsedRefusal]) -> tuple[RehearsedRefusal, ...]:
    """The last few of each stage, oldest first."""
    by_stage: defaultdict[str, list[RehearsedRefusal]] = defaultdict(list)
    for each in sorted(examples, key=lambda example: example.at):
        by_stage[each.stage] = [*by_stage[each.stage], each][-EXAMPLES:]
    return tuple(sorted((each for some in by_stage.values() for each in some), key=lambda example: example.at))


def _most(sources: Iterable[RehearsedSource]) -> tuple[RehearsedSource, ...]:
    """The sources with the most clients, most first."""
    counts = _sums({each.source: each.refused} for each in sources)
    most = sorted(counts.items(), key=lambda item: -item[1])[:TOP]
    return tuple(RehearsedSource(source, refused) for source, refused in most)
