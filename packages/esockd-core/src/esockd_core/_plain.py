"""Plain values: dataclasses that survive a round trip through JSON."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from datetime import datetime
from enum import StrEnum
from functools import cache
from types import NoneType, UnionType
from typing import Any, Final, Literal, Self, TypeAlias, Union, cast, get_args, get_origin, get_type_hints

Reader: TypeAlias = Callable[[Any], Any]

SIMPLE: Final = frozenset({str, int, float, bool, NoneType})
BASE64: Final = "base64"  # the one key of a mapping that stands for bytes


class PlainValue:
    """Base of dataclasses that hold numbers, texts, times and bytes, and collections and plain values of these."""

    __slots__ = ()

    def as_dict(self) -> dict[str, Any]:
        """Its fields and properties as JSON can hold them.

        Tuples become lists, times ISO 8601 texts, and bytes `{"base64": "..."}`.
        """
        told = ((name, getattr(self, name)) for name in _names(_any(type(self))))
        return {name: value if type(value) in SIMPLE else to_json(value) for name, value in told}

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Self:
        """Read the value that `as_dict` wrote.

        A newer version may have written more: unknown names are ignored, and an unknown word of an enumeration stays
        text.

        Raises:
            ValueError: If something is missing or of another type.
        """
        if not isinstance(given, Mapping):
            raise ValueError(f"{cls.__name__}: {_brief(given)} is not a mapping")  # noqa: TRY004 (as everything wrong)
        values: dict[str, Any] = {}
        for name, read, is_needed in _readers(_any(cls)):
            if name in given:
                try:
                    values[name] = read(given[name])
                except (ValueError, TypeError) as error:
                    raise ValueError(f"{cls.__name__}.{name}: {error}") from error
            elif is_needed:
                raise ValueError(f"{cls.__name__}.{name} is missing")
        return cls(**values)


def to_json(value: Any) -> Any:  # noqa: PLR0911 (one for each kind)
    """A plain value, or a collection of them, as JSON can hold it."""
    if type(value) in SIMPLE:
        return value
    match value:
        case PlainValue():
            return value.as_dict()
        case StrEnum():
            return value.value
        case Mapping():
            return {str(key): each if type(each) in SIMPLE else to_json(each) for key, each in value.items()}
        case tuple() | list():
            return [each if type(each) in SIMPLE else to_json(each) for each in value]
        case bytes():
            return {BASE64: b64encode(value).decode()}
        case datetime():
            return value.isoformat()
    raise TypeError(f"{_brief(value)} is not a plain value")


def from_json(value: Any) -> Any:
    """Read texts, numbers, bytes, and tuples and mappings of these that `to_json` wrote."""
    if isinstance(value, list):
        return tuple(from_json(each) for each in value)
    if isinstance(value, dict):
        mapping = cast("dict[str, Any]", value)
        if mapping.keys() == {BASE64} and isinstance(mapping[BASE64], str):
            return _read_bytes(mapping)
        return {key: from_json(each) for key, each in mapping.items()}
    return value


@cache
def _names(kind: Any) -> tuple[str, ...]:
    shown = dict.fromkeys(field.name for field in fields(kind))
    for base in reversed(kind.__mro__):
        shown |= dict.fromkeys(name for name, value in vars(base).items() if isinstance(value, property))
    return tuple(shown)


@cache
def _readers(kind: Any) -> tuple[tuple[str, Reader, bool], ...]:
    hints = get_type_hints(kind)
    return tuple(
        (
            field.name,
            make_reader(hints[field.name]),
            field.default is MISSING and field.default_factory is MISSING,
        )
        for field in fields(kind)
    )


def make_reader(hint: Any) -> Reader:
    """Make a function that reads a value of this type from JSON."""
    if get_origin(hint) in (Union, UnionType):
        choices = [(_kinds(part), make_reader(part)) for part in get_args(hint)]
    else:
        choices = [(_kinds(hint), _make(hint))]

    def read(value: Any) -> Any:
        for kinds, make in choices:
            if type(value) in kinds:
                return make(value)
        raise ValueError(f"{_brief(value)} is not expected here")

    return read


def _kinds(hint: Any) -> tuple[type, ...]:
    """The types that JSON uses for a type."""
    origin = get_origin(hint) or hint
    if origin is Literal or (isinstance(origin, type) and issubclass(origin, (str, datetime))):
        return (str,)
    if origin is float:
        return (float, int)
    if origin is tuple:
        return (list,)
    if origin in (int, bool, NoneType):
        return (origin,)
    return (dict,)


def _make(hint: Any) -> Reader:  # noqa: PLR0911 (one for each kind)
    origin, parts = get_origin(hint), get_args(hint)
    if origin is tuple:
        if parts[-1] is Ellipsis:
            each = make_reader(parts[0])
            return lambda value: tuple(map(each, value))
        readers = [make_reader(part) for part in parts]
        return lambda value: tuple(read(part) for read, part in zip(readers, value, strict=True))
    if origin is dict:
        of_value = make_reader(parts[1])
        return lambda value: {key: of_value(each) for key, each in value.items()}
    if isinstance(hint, type):
        if issubclass(hint, PlainValue):
            return hint.from_dict
        if issubclass(hint, StrEnum):
            members: dict[str, Any] = {member.value: member for member in hint}
            return lambda value: members.get(value, value)
        if issubclass(hint, datetime):
            return datetime.fromisoformat
        if issubclass(hint, bytes):
            return _read_bytes
        if hint is float:
            return float
    return lambda value: value


def _read_bytes(value: Mapping[str, Any]) -> bytes:
    if value.keys() != {BASE64}:
        raise ValueError(f"{_brief(value)} does not hold bytes")
    return b64decode(value[BASE64], validate=True)


def _any(kind: type) -> Any:
    return kind  # mypy takes no class of such a dataclass for hashable


def _brief(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:80]}..."
