"""Options as plain values, which can be shown, stored and sent. They contain no secrets."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import fields
from fractions import Fraction
from functools import partial
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final, TypeAlias, Union, cast

from esockd_cidr import AccessList, Action, Rule
from esockd_core._options.certificate import TlsCertificate
from esockd_core._options.dtls import DtlsOptions
from esockd_core._options.proxy import ProxyOptions
from esockd_core._options.shared import ServerUrl
from esockd_core._options.tcp import TcpOptions
from esockd_core._options.tls import TlsOptions
from esockd_core._options.udp import UdpOptions
from esockd_core._options.unix import UnixOptions
from esockd_ratelimit import Rate

if TYPE_CHECKING:
    from esockd_core._options.listener import ListenerOptions

GROUPS: Final = (ProxyOptions, TcpOptions, UdpOptions, UnixOptions, TlsOptions, DtlsOptions, TlsCertificate)

OptionValue: TypeAlias = Union[
    bool, int, float, str, bytes, "tuple[OptionValue, ...]", "Mapping[str, OptionValue]", None
]
"""An option's value as it can be shown: rules, rates and paths as texts, the program's own objects as import paths."""


def plain_options(options: ListenerOptions) -> dict[str, OptionValue]:
    """Every option by its name, those of a group as "tcp.backlog"."""
    return dict(_flatten("", options))


def _flatten(prefix: str, group: Any) -> Iterable[tuple[str, OptionValue]]:
    for name, value in _shown(group):
        if isinstance(value, GROUPS):
            yield from _flatten(f"{prefix}{name}.", value)
        else:
            yield prefix + name, plain_value(value)


def plain_value(value: object) -> OptionValue:  # noqa: PLR0911 (one for each kind)
    """The value of an option as a plain value."""
    match value:
        case None | bool() | int() | float() | bytes():
            return value
        case ServerUrl():
            return value.shown
        case str() | PurePath() | Rule() | Rate():
            return str(value)
        case Fraction():
            return str(Rate.of(value))
        case AccessList():
            rules = tuple(str(rule) for rule in value.rules)
            return rules if value.default is Action.ALLOW else (*rules, "deny all")
        case Mapping():
            return {str(key): plain_value(each) for key, each in cast("Mapping[object, object]", value).items()}
        case tuple() | list() | set() | frozenset():
            return tuple(plain_value(each) for each in cast("Iterable[object]", value))
    if isinstance(value, GROUPS):
        return {name: plain_value(each) for name, each in _shown(value)}
    return import_path(value)


def _shown(group: Any) -> Iterable[tuple[str, object]]:
    # What `repr` leaves out is a secret.
    return ((field.name, getattr(group, field.name)) for field in fields(group) if field.repr)


def import_path(value: object) -> str:
    """The import path of a function or class, as "package.module:name".

    Another object is looked for in the module of its class. If it is not there, the class stands for it.
    """
    while isinstance(value, partial):
        value = cast("partial[object]", value).func
    if hasattr(value, "__qualname__"):
        found: Any = value
        return f"{found.__module__}:{found.__qualname__}"
    module = type(value).__module__
    beside = vars(sys.modules[module]) if module in sys.modules else {}
    names = (name for name, other in beside.items() if other is value)
    return f"{module}:{next(names, type(value).__qualname__)}"
