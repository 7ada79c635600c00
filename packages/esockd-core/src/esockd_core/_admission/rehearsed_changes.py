"""What a rehearsal would change: rules in front of all others, and options, with the values that they had.

The changes are kept as changes. Whatever else is changed meanwhile, they are applied to the rules and options that are
in force then. What they change itself has to be as it was when they are made live, so that nothing is lost that
somebody else has set.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from esockd_cidr import AccessList
from esockd_core._checks import is_number
from esockd_core._errors import InvalidOption, RehearsalConflict, quote
from esockd_core._options.changes import REHEARSED, merge_options, plan_options
from esockd_core._options.plain import plain_value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from esockd_cidr import RuleLike
    from esockd_core._options.changes import OptionChange, OptionPlan
    from esockd_core._options.listener import ListenerOptions
    from esockd_core._options.plain import OptionValue

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


def changed_options(
    options: ListenerOptions, changes: Mapping[str, Any], check: Callable[[ListenerOptions], ListenerOptions]
) -> ListenerOptions:
    """Options with the changes of a rehearsal.

    Args:
        options: The options in force.
        changes: The changes as they were given.
        check: Checks options for their listener.

    Raises:
        InvalidOption: If an option among them cannot be rehearsed, or does not fit.
    """
    changed = check(merge_options(options, changes))
    _check_rehearsed(changes, plan_options(options, changed), changed)
    return changed


def _check_rehearsed(changes: Mapping[str, Any], plan: OptionPlan, options: ListenerOptions) -> None:
    for name in (*_names(changes), *(change.name for change in plan.changes)):
        if name not in REHEARSED:
            hint = f"These can: rules in front, {', '.join(REHEARSED)}."
            raise InvalidOption("it cannot be rehearsed", option=name, hint=hint)
    if options.shared is not None and "max_conn_rate" in changes:
        raise InvalidOption("it is shared with other machines, and cannot be rehearsed here", option="max_conn_rate")


def rules_in_front(rules: Iterable[RuleLike], behind: AccessList) -> AccessList:
    """The rules of a rehearsal.

    Args:
        rules: The rules as they were given.
        behind: Those that come after them.

    Raises:
        CidrError: If one is not valid, or comes twice.
        InvalidOption: If one is there already.
    """
    in_front = AccessList(rules)
    for rule in in_front.rules:
        if rule in behind:
            raise InvalidOption("the access rules have it already", option="rules", value=str(rule))
    return in_front


class RehearsedChanges:
    """What a rehearsal would change.

    Args:
        rules: Rules to put before all others.
        changes: Options to change.
        options: The options in force when it begins.
        changed: The same with the changes.
        access: The live access rules.

    Attributes:
        rules: The rules in front, as texts.
        options: The changes of options as they were given.
        differences: The differences that these make.
    """

    def __init__(
        self,
        rules: AccessList,
        changes: Mapping[str, Any],
        options: ListenerOptions,
        changed: ListenerOptions,
        access: AccessList,
    ) -> None:
        self.rules: tuple[str, ...] = tuple(str(rule) for rule in rules.rules)
        self.options = changes
        self.differences: tuple[OptionChange, ...] = plan_options(options, changed).changes
        self._values = {
            name: (_value(options, name), _value(changed, name)) for name in _names(changes) if name != "access_rules"
        }
        self._replaced = (access.rules, access.default) if "access_rules" in changes else None

    @property
    def replaces_rules(self) -> bool:
        """Whether they exchange all access rules."""
        return self._replaced is not None

    def require_no_conflict(self, options: ListenerOptions, access: AccessList) -> None:
        """See that what they change is as it was when the rehearsal began, or as it would be.

        Args:
            options: The options in force now.
            access: The live access rules.

        Raises:
            RehearsalConflict: If somebody else has changed it.
        """
        for name, (before, after) in self._values.items():
            if (now := _value(options, name)) not in (before, after):
                raise _conflict(name, f"was changed from {quote(before)} to {quote(now)}")
        if self._replaced is not None:
            if self._replaced != (access.rules, access.default):
                raise _conflict("the access rules", "were changed")
            return
        for rule in self.rules:
            if rule in access:
                raise _conflict(f'the rule "{rule}"', "was put in")


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


def _conflict(what: str, happened: str) -> RehearsalConflict:
    return RehearsalConflict(f"{what} {happened} since the rehearsal began: rehearse again, or cancel it")
