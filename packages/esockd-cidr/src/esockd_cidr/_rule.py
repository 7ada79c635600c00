"""Rules: an action and what it applies to, in nginx's words."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, TypeAlias

from esockd_cidr._errors import InvalidRule
from esockd_cidr._network import Network, parse_network

if TYPE_CHECKING:
    from collections.abc import Iterator

FORM: Final = "write allow or deny, one blank, and an address, a network, all or unix:"


class Action(StrEnum):
    """What a rule does with the peers it matches."""

    ALLOW = "allow"
    DENY = "deny"


class Scope(StrEnum):
    """What a rule can apply to beside a network."""

    ALL = "all"
    """Every peer: IPv4, IPv6 and Unix."""
    UNIX = "unix:"
    """Every peer of a Unix socket, whatever the path."""


@dataclass(frozen=True, slots=True)
class Rule:
    """An action for the peers of a network or scope. Prints as it would be written: `deny 10.0.0.0/8`.

    Attributes:
        action: `allow` or `deny`.
        target: The network, `Scope.ALL` or `Scope.UNIX`. The constructor also takes any of them as text.

    Raises:
        InvalidRule: The action or the target is none.
    """

    action: Action
    target: Network | Scope

    def __init__(self, action: Action | str, target: Network | Scope | str) -> None:
        object.__setattr__(self, "action", to_action(action))
        object.__setattr__(self, "target", target if isinstance(target, Network) else _target(target))

    @property
    def masked(self) -> bool:
        """Whether the rule was written with bits right of its prefix, as `deny 10.0.0.1/8`, that were cleared."""
        return isinstance(self.target, Network) and self.target.host_bits != 0

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Read one rule such as `deny 10.0.0.0/8`, with or without nginx's semicolon at the end.

        Raises:
            InvalidRule: The text is no rule; the error names it and says why.
        """
        if not isinstance(text, str):
            raise InvalidRule(text, f"a rule is text such as deny 10.0.0.0/8, not {type(text).__name__}")
        return _parse(text.strip(" \t\r\n").removesuffix(";").rstrip(" \t"), text)

    def __str__(self) -> str:
        return f"{self.action} {self.target}"


RuleLike: TypeAlias = Rule | str | tuple[Action | str, Network | Scope | str]
"""A rule, its text, or the pair of its action and target."""


def to_action(given: object) -> Action:
    """The action that a word stands for."""
    action = _ACTIONS.get(given) if isinstance(given, str) else None
    if action is None:
        raise InvalidRule(given, "an action is allow or deny")
    return action


def to_rule(given: object) -> Rule:
    """The rule that a rule, a text or a pair stands for."""
    if isinstance(given, Rule):
        return given
    if isinstance(given, str):
        return Rule.parse(given)
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise InvalidRule(given, 'a rule is a text such as "deny all", a pair ("deny", "all") or a Rule')
    return Rule(*given)


def parse_rules(text: str) -> Iterator[tuple[int, Rule]]:
    """Read a whole text of rules: yield each with the number of its line, from 1.

    A rule ends with a semicolon or with its line; `#` begins a comment; empty lines mean nothing.

    Raises:
        InvalidRule: A rule is none; the error names the line.
    """
    if not isinstance(text, str):
        raise InvalidRule(text, f"rules are text, not {type(text).__name__}; decode bytes first")
    for number, line in enumerate(text.split("\n"), start=1):
        *ended, rest = line.partition("#")[0].split(";")
        words = [part.strip(" \t\r") for part in ended]
        if rest := rest.strip(" \t\r"):
            words.append(rest)
        for word in words:
            yield number, _parse(word, word, number)


def _parse(text: str, given: str, line: int | None = None) -> Rule:
    action, _, target = text.replace("\t", " ").partition(" ")
    if action not in _ACTIONS or not target:
        raise InvalidRule(given, FORM, line)
    try:
        return Rule(action, target.lstrip(" "))
    except InvalidRule as error:
        raise InvalidRule(given, error.reason, line) from None


def _target(given: str) -> Network | Scope:
    return _SCOPES.get(given) or parse_network(given)


_ACTIONS: Final[dict[str, Action]] = {action: action for action in Action}
_SCOPES: Final[dict[str, Scope]] = {scope: scope for scope in Scope}
