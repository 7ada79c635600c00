"""A rehearsal: changes of rules and limits that are tried on real clients, and hurt none of them."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import anyio

from esockd_core._admission.rules import RulesInFront
from esockd_core._admission.shadow import Shadow

if TYPE_CHECKING:
    from esockd_cidr import AccessList
    from esockd_core._admission.admission import Admission
    from esockd_core._admission.rehearsed_changes import RehearsedChanges
    from esockd_core._admission.rules import Rules
    from esockd_core._connection.site import Site
    from esockd_core._options.listener import ListenerOptions
    from esockd_core._stats.state import RehearsalState

logger = logging.getLogger("esockd_core")


class Rehearsal:
    """One rehearsal of a listener.

    Args:
        site: The parts of the listener.
        live: Its admission.
        access: Its live access rules.
        rules: Rules to put before all others.
        changes: What it would change.
        changed: The options in force with these changes.
        duration: The most seconds that it lasts.

    Attributes:
        changes: What it would change.
        state: Its state.
        reason: Why it ended by itself; None if it did not.
        started_at: Seconds since the epoch.
        duration: The most seconds that it lasts.
        shadow: Judges, and has the counts.
    """

    def __init__(
        self,
        site: Site,
        live: Admission,
        access: AccessList,
        *,
        rules: AccessList,
        changes: RehearsedChanges,
        changed: ListenerOptions,
        duration: float,
    ) -> None:
        self._site = site
        self.changes = changes
        behind = changed.access_list() if changes.replaces_rules else access
        self.duration = duration
        self.state: RehearsalState = "running"
        self.reason: str | None = None
        self.started_at = time.time()
        self._began_s = anyio.current_time()
        self._ended_s: float | None = None
        judged_by: Rules = RulesInFront(rules, behind) if changes.rules else behind
        self.shadow = Shadow(site, live, judged_by, changed, self._fail)
        self.shadow.start()

    @property
    def elapsed_s(self) -> float:
        """For how long it has judged."""
        return (anyio.current_time() if self._ended_s is None else self._ended_s) - self._began_s

    @property
    def is_running(self) -> bool:
        """Whether it judges."""
        return self.state == "running"

    def end(self, state: RehearsalState, reason: str | None = None) -> None:
        """Judge no more. The counts and the changes stay."""
        if self._ended_s is None:
            self._ended_s = anyio.current_time()
            self.shadow.stop()
        self.state = state
        if reason is not None:
            self.reason = reason
            refused = sum(self.shadow.newly_refused.values())
            logger.info(
                "listener %s: the rehearsal is over: %s. It would have refused %d of %d clients",
                self._site.name,
                reason,
                refused,
                self.shadow.seen,
                extra={"listener": self._site.name},
            )

    def look_at_time(self, lag_s: float) -> None:
        """End it if its time is over; called a few times a second.

        Args:
            lag_s: How late the event loop runs.
        """
        self.shadow.note_lag(lag_s)
        if self.is_running and self.elapsed_s >= self.duration:
            self.end("over", f"its {self.duration:g} seconds have passed")

    def _fail(self, error: Exception) -> None:
        if self.is_running:
            logger.error("listener %s: the rehearsal failed", self._site.name, exc_info=error)
            self.end("over", f"it failed: {error!r}")
