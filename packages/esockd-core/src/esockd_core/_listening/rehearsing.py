"""The part of a listener that rehearses changes of its rules and limits."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Final, Unpack

from esockd_core._admission.rehearsal import Rehearsal
from esockd_core._admission.rehearsed_changes import (
    RehearsedChanges,
    changed_options,
    check_duration,
    rules_in_front,
)
from esockd_core._errors import InvalidOption, RehearsalConflict
from esockd_core._listening.audited import audited
from esockd_core._listening.inspected import wrong_is_invalid
from esockd_core._listening.ruling import Ruling
from esockd_core._stats.top_sources import source_text
from esockd_core.control.interface import REHEARSAL_TIME
from esockd_core.control.rehearsal import RehearsalReport, RehearsedRefusal, RehearsedSource

if TYPE_CHECKING:
    from collections.abc import Mapping

    import anyio

    from esockd_cidr import AccessList, RuleLike
    from esockd_core._options.arguments import OptionArguments
    from esockd_core._options.changes import OptionChange, OptionPlan
    from esockd_core._options.listener import ListenerOptions
    from esockd_core._stats.state import RehearsalState

TOP: Final = 10  # sources in a report


class Rehearsing(Ruling):
    """Rehearses changes, one rehearsal at a time."""

    _rehearsal: Rehearsal | None
    _changing: anyio.Lock

    @audited
    async def rehearse(
        self, *rules: RuleLike, duration: float = REHEARSAL_TIME, **changes: Unpack[OptionArguments]
    ) -> RehearsalReport:
        """Judge every client by changed rules and limits too, and refuse nobody; see `ListenerControl`."""
        check_duration(duration)
        async with self._changing:
            self._require_open()
            if self._rehearsal is not None and self._rehearsal.is_running:
                raise RehearsalConflict(f"listener {self.name} has a rehearsal already: commit it or cancel it first")
            if not rules and not changes:
                raise InvalidOption("it takes rules or options to change", option="changes")
            changed = self._changed_by(changes)
            with wrong_is_invalid("rules", rules):
                behind = changed.access_list() if "access_rules" in changes else self._access
                in_front = rules_in_front(rules, behind)
            return report_of(self._begin_rehearsal(in_front, dict(changes), changed, duration))

    def _begin_rehearsal(
        self, in_front: AccessList, changes: Mapping[str, Any], changed: ListenerOptions, duration: float
    ) -> Rehearsal:
        """Begin to judge by changes that have been checked."""
        self._rehearsal = Rehearsal(
            self._site,
            self._admission,
            self._access,
            rules=in_front,
            changes=RehearsedChanges(in_front, changes, self.options, changed, self._access),
            changed=changed,
            duration=duration,
        )
        return self._rehearsal

    async def get_rehearsal(self) -> RehearsalReport | None:
        """The report of the last rehearsal."""
        return None if self._rehearsal is None else report_of(self._rehearsal)

    @audited
    async def commit_rehearsal(self) -> RehearsalReport:
        """Make live what was rehearsed; see `ListenerControl`."""
        async with self._changing:
            rehearsal = self._found_rehearsal()
            changes = rehearsal.changes
            changes.require_no_conflict(self.options, self._access)
            plan = await self._change_options(self._changed_by(changes.options), reopen=False)
            # Nothing else has run since they were found to be new.
            for rule in reversed(changes.rules):
                self._access.prepend(rule)
            return self._forget_rehearsal(rehearsal, "committed", plan.changes)

    @audited
    async def cancel_rehearsal(self) -> RehearsalReport:
        """Forget a rehearsal; see `ListenerControl`."""
        return self._forget_rehearsal(self._found_rehearsal(), "cancelled")

    def _found_rehearsal(self) -> Rehearsal:
        if self._rehearsal is None:
            raise RehearsalConflict(f"listener {self.name} has no rehearsal")
        return self._rehearsal

    def _forget_rehearsal(
        self, rehearsal: Rehearsal, state: RehearsalState, changes: tuple[OptionChange, ...] | None = None
    ) -> RehearsalReport:
        self._rehearsal = None
        rehearsal.end(state)
        return report_of(rehearsal, changes)

    def _look_at_rehearsal(self, lag_s: float) -> None:
        """End a rehearsal whose time is over; called a few times a second."""
        if self._rehearsal is not None:
            self._rehearsal.look_at_time(lag_s)

    def _end_rehearsal(self, reason: str) -> None:
        """End a rehearsal that is running, for a reason of the listener's."""
        if self._rehearsal is not None and self._rehearsal.is_running:
            self._rehearsal.end("over", reason)

    def _rehearse_on(self) -> None:
        """Apply the changes of a rehearsal to the options in force, or end it if they do not fit any more."""
        rehearsal = self._rehearsal
        if rehearsal is None or not rehearsal.is_running:
            return
        try:
            changed = self._changed_by(rehearsal.changes.options)
        except InvalidOption as error:
            rehearsal.end("over", f"the options were changed, and it does not fit any more: {error}")
        else:
            rehearsal.shadow.follow(changed)

    def _changed_by(self, changes: Mapping[str, Any]) -> ListenerOptions:
        return changed_options(self.options, changes, self._checked)

    @abstractmethod
    def _require_open(self) -> None: ...

    @abstractmethod
    def _checked(self, options: ListenerOptions) -> ListenerOptions: ...

    @abstractmethod
    async def _change_options(self, new: ListenerOptions, *, reopen: bool) -> OptionPlan: ...


def report_of(rehearsal: Rehearsal, changes: tuple[OptionChange, ...] | None = None) -> RehearsalReport:
    """A rehearsal at this moment.

    Args:
        rehearsal: The rehearsal.
        changes: What it has changed; None for what it would.
    """
    shadow = rehearsal.shadow
    return RehearsalReport(
        rules=rehearsal.changes.rules,
        changes=rehearsal.changes.differences if changes is None else changes,
        state=rehearsal.state,
        reason=rehearsal.reason,
        started_at=rehearsal.started_at,
        duration=rehearsal.duration,
        elapsed=rehearsal.elapsed_s,
        seen=shadow.seen,
        refused=_counts(shadow.refused),
        newly_refused=_counts(shadow.newly_refused),
        newly_admitted=_counts(shadow.newly_admitted),
        waiting=shadow.waiting,
        examples=tuple(
            RehearsedRefusal(each.client, str(each.stage), each.reason, each.at) for each in shadow.examples
        ),
        top_sources=tuple(RehearsedSource(source_text(source), count) for source, count in shadow.sources.top(TOP)),
    )


def _counts(counts: Mapping[str, int]) -> dict[str, int]:
    return {str(name): count for name, count in counts.items() if count}
