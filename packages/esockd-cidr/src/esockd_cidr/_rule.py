"""Rules: an action and what it applies to, written as in nginx."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

from esockd_cidr._errors import InvalidRule
from esockd_cidr._network import Network, parse_network

FORM: Final = "a rule is allow or deny, one blank, and an address, a network, all or unix:"


class Action(StrEnum):
    """What a rule does with the peers it matches."""

    ALLOW = "allow"
    DENY = "deny"


class Scope(StrEnum):
    """What a rule can apply to other than a network."""

    ALL = "all"
    """Every peer: IPv4, IPv6 and Unix."""
    UNIX = "unix:"
    """Every peer of a Unix socket, whatever the path."""


@dataclass(frozen=True, slots=True)
class Rule:
    """An action for the peers of a network or scope. Prints as one would write it: `deny 10.0.0.0/8`.

    Attributes:
        action: `allow` or `deny`.
        target: The network, `Scope.ALL` or `Scope.UNIX`. The constructor also takes any of them as text.

    Raises:
        InvalidRule: If the action or the target is not valid.
    """

    action: Action
    target: Network | Scope

    def __init__(self, action: Action | str, target: Network | Scope | str) -> None:
        object.__setattr__(self, "action", to_action(action))
        object.__setattr__(self, "target", target if isinstance(target, Network) else _target(target))

    @property
    def masked(self) -> bool:
        """Whether the rule had bits set to the right of its prefix that were cleared, as in `deny 10.0.0.1/8`."""
        return isinstance(self.target, Network) and self.target.host_bits != 0

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Read one rule such as `deny 10.0.0.0/8`, with or without nginx's semicolon at the end.

        Raises:
            InvalidRule: If the text is not a rule; the error names it and says why.
        """
        if not isinstance(text, str):
            raise InvalidRule(f"it takes text such as deny all, not {type(text).__name__}", option="rule", value=text)
        return parse_rule(text.strip(" \t\r\n").removesuffix(";").rstrip(" \t"), text)

    def __str__(self) -> str:
        return f"{self.action} {self.target}"

    def __repr__(self) -> str:
        return f"Rule({str(self.action)!r}, {str(self.target)!r})"


RuleLike: TypeAlias = Rule | str | tuple[Action | str, Network | Scope | str]
"""A rule, its text, or the pair of its action and target."""


def to_action(given: object, option: str = "action") -> Action:
    """The action that a word stands for, given as the argument `option`."""
    action = _ACTIONS.get(given) if isinstance(given, str) else None
    if action is None:
        raise InvalidRule("it takes allow or deny", option=option, value=given)
    return action


def to_rule(given: object) -> Rule:
    """The rule that a rule, a text or a pair stands for."""
    if isinstance(given, Rule):
        return given
    if isinstance(given, str):
        return Rule.parse(given)
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        reason = 'it takes a text such as "deny all", a pair such as ("deny", "all") or a Rule'
        raise InvalidRule(reason, option="rule", value=given)
    return Rule(*given)


def parse_rule(text: str, given: str, line: int | None = None) -> Rule:
    """Read one rule without its semicolon.

    Args:
        text: The rule.
        given: What errors show as the rule.
        line: Its line, when it was read from a whole text.

    Raises:
        InvalidRule: If it is not a rule.
    """
    action, _, target = text.replace("\t", " ").partition(" ")
    if action not in _ACTIONS or not target:
        raise InvalidRule(FORM, option="rule", value=given, line=line)
    try:
        return Rule(action, target.lstrip(" "))
    except InvalidRule as error:
        raise InvalidRule(error.reason, option="rule", value=given, hint=error.hint, line=line) from None


def _target(given: str) -> Network | Scope:
    return _SCOPES.get(given) or parse_network(given)


_ACTIONS: Final[dict[str, Action]] = {action: action for action in Action}
_SCOPES: Final[dict[str, Scope]] = {scope: scope for scope in Scope}
