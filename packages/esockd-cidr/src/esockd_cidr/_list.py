"""The ordered list of rules, which answers for an address and changes while it is in use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from esockd_cidr._address import Address, parse_address
from esockd_cidr._errors import DuplicateRule, InvalidRule, UnknownRule
from esockd_cidr._network import Network
from esockd_cidr._rule import Action, Rule, RuleLike, Scope, parse_rules, to_rule

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@dataclass(frozen=True, slots=True)
class Match:
    """The rule that decided about an address.

    Attributes:
        action: What it decided.
        rule: The rule.
        index: Its position in the list, from 0.
    """

    action: Action
    rule: Rule
    index: int


class AccessList:
    """Ordered allow/deny rules: the first that matches an address decides.

    Args:
        rules: Rules, texts such as `deny 10.0.0.0/8`, or pairs such as `("deny", "10.0.0.0/8")`.
        default: What happens to an address that no rule matches.

    Raises:
        InvalidRule: A rule or the default is none.
        DuplicateRule: A rule appears twice with the same action.
    """

    __slots__ = ("_default", "_rules")

    def __init__(self, rules: Iterable[RuleLike] = (), default: Action | str = Action.ALLOW) -> None:
        self._rules: list[Rule] = []
        self._default = Rule(default, Scope.ALL).action
        self.replace(rules)

    @classmethod
    def parse(cls, text: str, default: Action | str = Action.ALLOW) -> AccessList:
        """Read a whole text of rules, such as a file of nginx's `allow` and `deny` lines."""
        access = cls(default=default)
        for line, rule in parse_rules(text):
            if rule in access._rules:
                raise DuplicateRule(rule, line)
            access._rules.append(rule)
        return access

    @property
    def default(self) -> Action:
        """What happens to an address that no rule matches."""
        return self._default

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules in their order."""
        return tuple(self._rules)

    def match(self, address: Address, version: Literal[4, 6] | None = None) -> Match | None:
        """The rule that decides about an address, or None when the default does."""
        version_read, value = parse_address(address, version)
        for index, rule in enumerate(self._rules):
            target = rule.target
            if (
                target is Scope.ALL
                or (target is Scope.UNIX and version_read == 0)
                or (
                    isinstance(target, Network)
                    and target.version == version_read
                    and target.first <= value <= target.last
                )
            ):
                return Match(rule.action, rule, index)
        return None

    def allows(self, address: Address, version: Literal[4, 6] | None = None) -> bool:
        """Whether the rules let an address in."""
        found = self.match(address, version)
        return (found.action if found else self._default) is Action.ALLOW

    def prepend(self, rule: RuleLike) -> None:
        """Put a rule before all others."""
        self.insert(0, rule)

    def append(self, rule: RuleLike) -> None:
        """Put a rule behind all others."""
        self.insert(len(self._rules), rule)

    def insert(self, index: int, rule: RuleLike) -> None:
        """Put a rule at a position, from 0; the rule there and those behind it move back by one."""
        rule = to_rule(rule)
        if rule in self._rules:
            raise DuplicateRule(rule)
        if not 0 <= index <= len(self._rules):
            raise InvalidRule(rule, f"position {index} is outside this list; give 0 to {len(self._rules)}")
        self._rules.insert(index, rule)

    def remove(self, rule: RuleLike) -> None:
        """Take a rule out."""
        rule = to_rule(rule)
        if rule not in self._rules:
            raise UnknownRule(rule)
        self._rules.remove(rule)

    def replace(self, rules: Iterable[RuleLike]) -> None:
        """Exchange all rules at once."""
        fresh: dict[Rule, None] = {}
        for given in rules:
            rule = to_rule(given)
            if rule in fresh:
                raise DuplicateRule(rule)
            fresh[rule] = None
        self._rules = list(fresh)

    def copy(self) -> AccessList:
        """An independent list of the same rules and default."""
        return AccessList(self._rules, self._default)

    def __len__(self) -> int:
        return len(self._rules)

    def __bool__(self) -> bool:
        return True  # a list without rules is still a decision: its default

    def __iter__(self) -> Iterator[Rule]:
        return iter(self.rules)

    def __str__(self) -> str:
        return "".join(f"{rule};\n" for rule in self._rules)
