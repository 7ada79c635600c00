"""Changing the options of a listener: new ones made from old ones, and what a change takes to be in force."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from esockd_cidr import AccessList
from esockd_core._errors import InvalidOption
from esockd_core._options import ListenerOptions
from esockd_core._tcp_options import TcpOptions
from esockd_core._tls_options import TlsOptions
from esockd_core._unix_socket import UnixOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

NESTED: Final = ("tcp", "unix")


class Effect(StrEnum):
    """When a changed option is in force."""

    LIVE = "live"
    """At once, for open connections and for those to come."""
    NEW_CONNECTIONS = "new connections"
    """At once, for connections to come; open ones go on as they are."""
    REOPEN = "reopen"
    """Once the listening sockets are opened anew; connections stay open meanwhile."""


NEW_CONNECTIONS: Final = frozenset({"tls", "proxy_protocol", "write_buffer_bytes", "tcp"})
REOPEN: Final = frozenset({"tcp.reuse_address", "tcp.reuse_port", "unix.mode", "unix.owner", "unix.group"})


@dataclass(frozen=True, slots=True)
class OptionChange:
    """One option that differs.

    Attributes:
        name: The option, of a nested one as "tcp.backlog".
        old: Its value in force.
        new: Its value to come.
        effect: When that is in force.
    """

    name: str
    old: object
    new: object
    effect: Effect


@dataclass(frozen=True, slots=True)
class OptionPlan:
    """What a change of options comes to.

    Attributes:
        changes: The options that differ, in their order in `ListenerOptions`.
    """

    changes: tuple[OptionChange, ...]

    @property
    def needs_reopen(self) -> tuple[str, ...]:
        """The options that take new listening sockets."""
        return tuple(change.name for change in self.changes if change.effect is Effect.REOPEN)

    def __contains__(self, name: object) -> bool:
        """Whether an option differs; "tcp" stands for every option of the sockets."""
        return any(name in (change.name, change.name.partition(".")[0]) for change in self.changes)


def plan_options(old: ListenerOptions, new: ListenerOptions) -> OptionPlan:
    """Say what differs between two sets of options, and what each difference takes to be in force."""
    return OptionPlan(tuple(_changes(old, new)))


def _changes(old: ListenerOptions, new: ListenerOptions) -> Iterator[OptionChange]:
    for field in fields(ListenerOptions):
        before, after = getattr(old, field.name), getattr(new, field.name)
        if field.name in NESTED:
            for part in fields(after):
                one, other = getattr(before, part.name), getattr(after, part.name)
                if one != other:
                    name = f"{field.name}.{part.name}"
                    yield OptionChange(name, one, other, _effect(name, other))
        elif not _is_same(before, after):
            yield OptionChange(field.name, before, after, _effect(field.name, after))


def _effect(name: str, value: object) -> Effect:
    # A socket keeps what it was told once: only a new one has the kernel's own value again.
    if name in REOPEN or (name.startswith("tcp.") and value is None):
        return Effect.REOPEN
    if name == "tcp.backlog":
        return Effect.LIVE
    return Effect.NEW_CONNECTIONS if name.partition(".")[0] in NEW_CONNECTIONS else Effect.LIVE


def _is_same(before: object, after: object) -> bool:
    if before is after:
        return True
    if isinstance(after, TlsOptions):
        return False  # other files may lie under the same names: each object has read its own
    if isinstance(before, AccessList) or isinstance(after, AccessList):
        return _decides(before) == _decides(after)
    return before == after


def _decides(rules: Any) -> object:
    if rules is None:
        return None
    rules = rules if isinstance(rules, AccessList) else AccessList(rules)
    return rules.rules, rules.default


def merge_options(options: ListenerOptions | None, changes: Mapping[str, Any]) -> ListenerOptions:
    """Options with single ones changed; nested options may be given as mappings, which change theirs.

    Raises:
        InvalidOption: A name is unknown, or a value out of bounds.
    """
    options = options or ListenerOptions()
    _check_names(ListenerOptions, changes)
    merged = dict(changes)
    for name, kind in (("tcp", TcpOptions), ("unix", UnixOptions), ("tls", TlsOptions)):
        given = changes.get(name)
        if isinstance(given, Mapping):
            _check_names(kind, given, f"{name}.")
            old = getattr(options, name)
            try:
                merged[name] = kind(**given) if old is None else replace(old, **given)
            except TypeError as error:  # one that has no default is missing
                raise InvalidOption(f"{name}: {error}") from error
    return replace(options, **merged)


def _check_names(kind: type, changes: Mapping[str, Any], prefix: str = "") -> None:
    known = {field.name for field in fields(kind)}
    for name in changes:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f'Did you mean "{close[0]}"?' if close else f"Known: {', '.join(sorted(known))}."
            raise InvalidOption(f'unknown option "{prefix}{name}". {hint}')
