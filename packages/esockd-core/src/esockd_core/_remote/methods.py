"""The methods of `ListenerControl` as they cross a socket, read from its signatures."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, Final, TypeAlias, Union, get_args, get_origin, get_type_hints

from esockd_core._admission.explain import Explanation
from esockd_core._errors import InvalidOption
from esockd_core._options.changes import OptionPlan
from esockd_core._plain import from_json, make_reader
from esockd_core._remote.errors import ControlError
from esockd_core._stats.counters import Refusal, Stats
from esockd_core._stats.top_sources import TopSource
from esockd_core.control import values
from esockd_core.control.interface import ListenerControl, Unset
from esockd_core.control.rehearsal import RehearsalReport

Reader: TypeAlias = Callable[[Any], Any]

CHANGES: Final = frozenset({
    "allow", "cancel_rehearsal", "close", "commit_rehearsal", "deny", "drain", "insert_rule", "kill",
    "kill_connection", "kill_connections", "rehearse", "remove_rule", "reopen", "replace_rules", "reset_options",
    "resume", "set_handler", "set_options", "set_tls", "suspend",
})  # fmt: skip
"""The methods that a read-only connection may not call."""
WAITS: Final = frozenset({"close", "drain", "kill", "wait_closed"})
"""The methods that may take for ever, while other requests go on."""

MANY: Final = 100  # values that no error shows

KNOWN_TYPES: Final = {
    **vars(values),
    **{each.__name__: each for each in (Explanation, OptionPlan, RehearsalReport, Refusal, Stats, TopSource, Unset)},
}
WORDS: Final = {str: "text", int: "a whole number", float: "a number", bool: "true or false", tuple: "a list"}


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a method.

    Attributes:
        read: Makes an argument from JSON.
        takes: The values that it takes, in words.
        is_needed: Whether it has to be given.
        kind: As in `inspect.Parameter`.
    """

    read: Reader
    takes: str
    is_needed: bool
    kind: Any


@dataclass(frozen=True, slots=True)
class Method:
    """One method.

    Attributes:
        name: As in `ListenerControl`.
        parameters: By name. Further options come in one parameter, named as in the signature.
        read_result: Makes a result from JSON.
    """

    name: str
    parameters: Mapping[str, Parameter]
    read_result: Reader

    def bind(self, given: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """The arguments of a call.

        Raises:
            InvalidOption: If one is missing or of a wrong type.
            ControlError: If this version does not know a parameter.
        """
        unknown = sorted(given.keys() - self.parameters.keys())
        if unknown and self.name in CHANGES:  # what the client meant by it would be lost
            raise ControlError(f"{self.name} knows no parameter {unknown[0]}", code="unknown_parameter")
        positional: list[Any] = []
        named: dict[str, Any] = {}
        for name, parameter in self.parameters.items():
            if name not in given:
                if parameter.is_needed:
                    raise InvalidOption(f"it is missing: it takes {parameter.takes}", option=name)
                continue
            argument = self._read(name, parameter, given[name])
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                positional.extend(argument)
            elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
                if taken := argument.keys() & self.parameters.keys():
                    raise InvalidOption("it is not an option", option=min(taken))
                named.update(argument)
            else:
                named[name] = argument
        return positional, named

    @staticmethod
    def _read(name: str, parameter: Parameter, value: Any) -> Any:
        try:
            return parameter.read(value)
        except ValueError as error:
            shown = ... if isinstance(value, list | dict) and len(value) > MANY else value
            raise InvalidOption(f"it takes {parameter.takes}", option=name, value=shown) from error


def _method(name: str) -> Method:
    function = getattr(ListenerControl, name)
    given = [each for each in inspect.signature(function).parameters.values() if each.name != "self"]
    hints = _hints(function, {each.name for each in given if each.kind is not inspect.Parameter.VAR_KEYWORD})
    return Method(
        name, {each.name: _parameter(each, hints.get(each.name)) for each in given}, make_reader(hints["return"])
    )


def _hints(function: Any, names: set[str]) -> dict[str, Any]:
    def typed() -> None: ...

    typed.__annotations__ = {name: function.__annotations__[name] for name in (*names, "return")}
    return get_type_hints(typed, function.__globals__, KNOWN_TYPES)


def _parameter(given: inspect.Parameter, hint: Any) -> Parameter:
    if given.kind is inspect.Parameter.VAR_KEYWORD:
        return Parameter(_read_options, "options by name", False, given.kind)
    if given.kind is inspect.Parameter.VAR_POSITIONAL:
        hint = tuple[hint, ...]
    parts = [part for part in _parts(hint) if part is not Unset]
    words = " or ".join(WORDS[get_origin(part) or part] for part in parts if part is not NoneType)
    return Parameter(
        make_reader(Union[tuple(parts)]),  # noqa: UP007 (of a tuple)
        f"{words} or nothing" if NoneType in parts else words,
        given.default is inspect.Parameter.empty and given.kind is not inspect.Parameter.VAR_POSITIONAL,
        given.kind,
    )


def _parts(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _read_options(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("options are a mapping")  # noqa: TRY004 (as everything that does not fit)
    return {str(name): from_json(each) for name, each in value.items()}


METHODS: Final[Mapping[str, Method]] = {name: _method(name) for name in sorted(ListenerControl.__abstractmethods__)}
