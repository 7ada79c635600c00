"""A rehearsal: changes of rules and limits that are tried on real clients, and hurt none of them.

The changes are kept as changes. Whatever else is changed meanwhile, they are applied to the rules and options that are
in force then. What they change itself has to be as it was when they are made live, so that nothing is lost that
somebody else has set.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import anyio

from esockd_core._admission.rules import RulesInFront
from esockd_core._admission.shadow import Shadow
from esockd_core._checks import is_number
from esockd_core._errors import InvalidOption, RehearsalConflict, quote
from esockd_core._options.changes import REHEARSED, plan_options
from esockd_core._options.plain import plain_value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from esockd_cidr import AccessList
    from esockd_core._admission.admission import Admission
    from esockd_core._admission.rules import Rules
    from esockd_core._connection.site import Site
    from esockd_core._options.changes import OptionChange, OptionPlan
    from esockd_core._options.listener import ListenerOptions
    from esockd_core._options.plain import OptionValue
    from esockd_core._stats.state import RehearsalState

logger = logging.getLogger("esockd_core")

LONGEST_S: Final = 7 * 86_400.0


def check_duration(duration: float) -> None:
    """Check for how long a rehearsal is to last.

    Raises:
        InvalidOption: If that is not a number, or out of bounds.
    """
    if not is_number(duration) or not 0 < duration <= LONGEST_S:
        raise InvalidOption(
            f"it takes seconds, more than 0 and at most {LONGEST_S:.0f}", option="duration", value=duration
        )


def check_rehearsed(changes: Mapping[str, Any], plan: OptionPlan, options: ListenerOptions) -> None:
    """Check that changes can be rehearsed.

    Args:
        changes: The changes as they were given.
        options: The options with the changes.
        plan: The differences that they make.

    Raises:
        InvalidOption: If an option is among them that cannot.
    """
    for name in (*_names(changes), *(change.name for change in plan.changes)):
        if name not in REHEARSED:
            hint = f"These can: rules in front, {', '.join(REHEARSED)}."
            raise InvalidOption("it cannot be rehearsed", option=name, hint=hint)
    if options.shared is not None and "max_conn_rate" in changes:
        raise InvalidOption("it is shared with other machines, and cannot be rehearsed here", option="max_conn_rate")


def _names(changes: Mapping[str, Any]) -> Iterator[str]:
    """The options that are changed, those of a group by their own names."""
    for name, value in changes.items():
        if isinstance(value, Mapping):
            yield from (f"{name}.{each}" for each in value)
        elif name == "proxy_protocol":
            yield from (each for each in REHEARSED if each.startswith(f"{name}."))
        else:
            yield name


def _value(options: ListenerOptions, name: str) -> OptionValue:
    group, _, field = name.rpartition(".")
    return plain_value(getattr(options.proxy if group else options, field, None))


class Rehearsal:
    """One rehearsal of a listener.

    Args:
        site: The parts of the listener.
        live: Its admission.
        access: Its live access rules.
        rules: Rules to put before all others.
        changes: Options to change.
        changed: The options in force with these changes.
        duration: The most seconds that it lasts.

    Attributes:
        rules: The rules in front, as texts.
        changes: The changes of options as they were given.
        differences: The differences that these make.
        state: Its state.
        reason: Why it ended by itself; None if it did not.
        started_at: Seconds since the epoch.
        duration: The most seconds that it lasts.
        shadow: Judges, and has the counts.

    Raises:
        InvalidOption: If a rule is not valid, is there already, or comes twice.
    """

    def __init__(
        self,
        site: Site,
        live: Admission,
        access: AccessList,
        *,
        rules: AccessList,
        changes: Mapping[str, Any],
        changed: ListenerOptions,
        duration: float,
    ) -> None:
        self._site = site
        self._access = access
        self.rules = tuple(str(rule) for rule in rules.rules)
        self.changes = changes
        self.differences: tuple[OptionChange, ...] = plan_options(site.options, changed).changes
        self._values = {
            name: (_value(site.options, name), _value(changed, name))
            for name in _names(changes)
            if name != "access_rules"
        }
        self._replaced = (access.rules, access.default) if "access_rules" in changes else None
        behind = access if self._replaced is None else changed.access_list()
        self.duration = duration
        self.state: RehearsalState = "running"
        self.reason: str | None = None
        self.started_at = time.time()
        self._began_s = anyio.current_time()
        self._ended_s: float | None = None
        judged_by: Rules = RulesInFront(rules, behind) if self.rules else behind
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

    def require_no_conflict(self) -> None:
        """See that what it changes is as it was when it began, or as it would be.

        Raises:
            RehearsalConflict: If somebody else has changed it.
        """
        for name, (before, after) in self._values.items():
            if (now := _value(self._site.options, name)) not in (before, after):
                raise _conflict(name, f"was changed from {quote(before)} to {quote(now)}")
        if self._replaced is not None:
            if self._replaced != (self._access.rules, self._access.default):
                raise _conflict("the access rules", "were changed")
            return
        for rule in self.rules:
            if rule in self._access:
                raise _conflict(f'the rule "{rule}"', "was put in")


def _conflict(what: str, happened: str) -> RehearsalConflict:
    return RehearsalConflict(f"{what} {happened} since the rehearsal began: rehearse again, or cancel it")
