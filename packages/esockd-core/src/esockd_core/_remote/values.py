"""Arguments of `ListenerControl` as JSON: the other side gets the same value, or the caller gets an error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from fractions import Fraction
from math import isfinite
from pathlib import PurePath
from typing import Any, cast

from esockd_cidr import AccessList, Action, Rule
from esockd_core._address import Address
from esockd_core._errors import InvalidOption
from esockd_core._options.plain import GROUPS
from esockd_core._plain import to_json
from esockd_ratelimit import Rate


def argument_to_json(name: str, value: object) -> Any:  # noqa: PLR0911 (one for each kind)
    """An argument or an option as JSON.

    Raises:
        InvalidOption: If it exists in this process only, such as a function or a socket.
    """
    match value:
        case float() if not isfinite(value):
            raise InvalidOption("it takes a finite number", option=name, value=value)
        case None | bool() | int() | float() | bytes():
            return to_json(value)
        case str() | PurePath() | Rule() | Rate():
            return str(value)
        case Fraction():
            return str(Rate.of(value))
        case AccessList():
            rules = [str(rule) for rule in value.rules]
            return rules if value.default is Action.ALLOW else [*rules, "deny all"]
        case Mapping():
            given = cast("Mapping[object, object]", value)
            return {str(key): argument_to_json(f"{name}.{key}", each) for key, each in given.items()}
        case tuple() | list() | set() | frozenset():
            return [argument_to_json(name, each) for each in cast("Iterable[object]", value)]
    return _group_to_json(name, value)


def _group_to_json(name: str, value: object) -> Any:
    if isinstance(value, GROUPS):  # whole: what is not written in it is meant to have its default
        return {each.name: argument_to_json(f"{name}.{each.name}", getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Address) and value.kind != "socket":
        return str(value)
    raise InvalidOption(
        "it takes texts, numbers and collections of them, because the listener is in another process",
        option=name,
        value=value,
    )
