"""Changes of the options of a listener: new options from old ones, and when each change takes effect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final, Self

from esockd_core._checks import did_you_mean
from esockd_core._errors import InvalidOption
from esockd_core._options.dtls import DtlsOptions
from esockd_core._options.listener import ListenerOptions
from esockd_core._options.option import Effect
from esockd_core._options.plain import OptionValue, plain_value
from esockd_core._options.proxy import ProxyOptions
from esockd_core._options.special_kinds import Networks, Rules
from esockd_core._options.table import OPTIONS, options_of
from esockd_core._options.tcp import TcpOptions
from esockd_core._options.tls import TlsOptions
from esockd_core._options.udp import UdpOptions
from esockd_core._options.unix import UnixOptions
from esockd_core._plain import PlainValue, from_json

if TYPE_CHECKING:
    from collections.abc import Iterator

NESTED: Final[dict[str, type[Any]]] = {
    "tcp": TcpOptions,
    "unix": UnixOptions,
    "udp": UdpOptions,
    "tls": TlsOptions,
    "dtls": DtlsOptions,
    "proxy_protocol": ProxyOptions,
}

OF_THE_SOCKET: Final = ("udp.receive_buffer_bytes", "udp.send_buffer_bytes", "udp.ttl", "udp.tos")

REHEARSED: Final = (
    "access_rules", "max_connections", "max_connections_per_source", "max_conn_rate", "max_conn_rate_per_source",
    "max_handshaking", "max_loop_lag", "proxy_protocol.trusted", "proxy_protocol.access_rules_on",
)  # fmt: skip
"""The options that can be rehearsed: those that admission judges by, and that need nothing new of sockets."""


@dataclass(frozen=True, slots=True)
class OptionChange(PlainValue):
    """One option that differs.

    Attributes:
        name: The name of the option, such as "tcp.backlog" for a nested one.
        old: Its old value, as a plain value.
        new: Its new value, as a plain value.
        effect: When the new value takes effect.
    """

    name: str
    old: OptionValue
    new: OptionValue
    effect: Effect

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Self:
        """Read the change that `as_dict` wrote.

        Raises:
            ValueError: If something is missing or of another type.
        """
        change = _Change.from_dict(given)
        return cls(change.name, from_json(given.get("old")), from_json(given.get("new")), change.effect)


@dataclass(frozen=True, slots=True)
class _Change(PlainValue):
    """The parts of an `OptionChange` that are always of one type."""

    name: str
    effect: Effect


@dataclass(frozen=True, slots=True)
class OptionPlan(PlainValue):
    """The differences that a change of options makes.

    Attributes:
        changes: The options that differ, in their order in `ListenerOptions`.
    """

    changes: tuple[OptionChange, ...]

    @property
    def needs_reopen(self) -> tuple[str, ...]:
        """The options that need new listening sockets."""
        return tuple(change.name for change in self.changes if change.effect is Effect.REOPEN)

    def __contains__(self, name: object) -> bool:
        """Whether an option differs; a nested one may be given by its first part, as "tcp"."""
        return any(name in (change.name, change.name.partition(".")[0]) for change in self.changes)


def plan_options(old: ListenerOptions, new: ListenerOptions) -> OptionPlan:
    """The differences between two sets of options, and when each takes effect."""
    return OptionPlan(tuple(_changes(old, new)))


def _changes(old: ListenerOptions, new: ListenerOptions) -> Iterator[OptionChange]:
    for field in fields(ListenerOptions):
        before, after = getattr(old, field.name), getattr(new, field.name)
        if field.name not in ("tls", "dtls") and type(before) is type(after) is NESTED.get(field.name):
            for part in fields(NESTED[field.name]):
                one, other = getattr(before, part.name), getattr(after, part.name)
                name = f"{field.name}.{part.name}"
                if not _is_same(name, one, other):
                    yield OptionChange(name, plain_value(one), plain_value(other), _effect(name, other))
        elif not _is_same(field.name, before, after):
            yield OptionChange(field.name, plain_value(before), plain_value(after), _effect(field.name, after))


def _effect(name: str, value: object) -> Effect:
    option = OPTIONS.get(name)
    if option is None:  # a group that comes, goes or is read anew as a whole
        return Effect.NEW_CONNECTIONS
    # A socket keeps what it was told once: only a new one has the kernel's own value again.
    if value is None and (option.group == "tcp" or name in OF_THE_SOCKET):
        return Effect.REOPEN
    return option.effect


def _is_same(name: str, before: object, after: object) -> bool:
    if before is after:
        return True
    if isinstance(after, TlsOptions | DtlsOptions):
        return False  # other files may lie under the same names: each object has read its own
    if before is None or after is None or name not in OPTIONS:
        return before == after
    kind = OPTIONS[name].kind
    if isinstance(kind, Rules | Networks):
        one, other = kind.convert(before), kind.convert(after)
        return (one.rules, one.default) == (other.rules, other.default)
    return before == after


def merge_options(options: ListenerOptions | None, changes: Mapping[str, Any]) -> ListenerOptions:
    """Options with single ones changed. Nested options may be given as mappings that change some of theirs.

    Raises:
        InvalidOption: If a name is unknown, or a value out of bounds.
    """
    options = options or ListenerOptions()
    _check_names(ListenerOptions, changes)
    merged = dict(changes)
    for name, kind in NESTED.items():
        given = changes.get(name)
        if isinstance(given, Mapping):
            _check_names(kind, given, f"{name}.")
            old: Any = getattr(options, name)
            merged[name] = replace(old, **given) if isinstance(old, kind) else _build(name, kind, given)
    return replace(options, **merged)


def _build(group: str, kind: type[Any], given: Mapping[str, Any]) -> Any:
    for option in options_of(group):
        if option.default is MISSING and option.field not in given:
            raise InvalidOption(f"{group} takes it", option=option.name, value=None)
    return kind(**given)


def _check_names(kind: type, changes: Mapping[str, Any], prefix: str = "") -> None:
    known = [field.name for field in fields(kind)]
    for name in changes:
        if name not in known:
            hint = did_you_mean(name, known) or f"There are {', '.join(known)}."
            raise InvalidOption("there is no such option", option=f"{prefix}{name}", hint=hint)
