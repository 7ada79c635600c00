"""The order of the rules: each has a rank, which changes of other rules leave alone.

A rank is a number that grows with the position, followed by one bit that is set for `allow`. Tables need hold nothing
but ranks: the least rank decides, and its last bit is the decision.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Final

from esockd_cidr._blocks import Blocks
from esockd_cidr._rule import Action

if TYPE_CHECKING:
    from collections.abc import Sequence

    from esockd_cidr._rule import Rule

NUMBERS: Final = (1 << 31) - 1  # ranks are kept in 32 bits; the last number is that of the default
STEP: Final = 64


def default_rank(action: Action) -> int:
    """The rank of a list's default, after that of every rule."""
    return NUMBERS << 1 | (action is Action.ALLOW)


class Order:
    """Rules with their ranks, first to last."""

    __slots__ = ("_latest", "_rules")

    def __init__(self, rules: Sequence[Rule]) -> None:
        gap = NUMBERS // 2 // (len(rules) + 1)  # half of the numbers lie between the rules, the others around them
        begin = NUMBERS // 4 + gap
        ranks = array("I", [begin + gap * at << 1 | (rule.action is Action.ALLOW) for at, rule in enumerate(rules)])
        self._rules = Blocks(ranks, list(rules))
        self._latest = -1

    def __len__(self) -> int:
        return len(self._rules)

    @property
    def rules(self) -> list[Rule]:
        """The rules."""
        return self._rules.values

    @property
    def ranks(self) -> list[int]:
        """Their ranks."""
        return self._rules.keys

    def find(self, rank: int) -> tuple[int, Rule]:
        """The position, from 0, and the rule with this rank."""
        return self._rules.find(rank)

    def rule(self, rank: int) -> Rule:
        """The rule with this rank."""
        return self._rules.value_of(rank)

    def insert(self, position: int, rule: Rule) -> int | None:
        """Insert a rule and return its rank; when no number is left there, change nothing and return None."""
        count = len(self._rules)
        before = self._rules.key_at(position - 1) >> 1 if position else -1
        after = self._rules.key_at(position) >> 1 if position < count else NUMBERS
        if not position:
            number = after - STEP if count else NUMBERS // 2
        elif position == count:
            number = before + STEP
        elif self._latest == after:  # rules inserted each before the last one, or each after it, leave room
            number = after - 1
        elif self._latest == before:
            number = before + 1
        else:
            number = (before + after) // 2
        if not before < number < after:
            return None
        self._latest = number
        rank = number << 1 | (rule.action is Action.ALLOW)
        self._rules.insert(rank, rule)
        return rank

    def remove(self, rank: int, rule: Rule) -> None:
        """Remove the rule with this rank."""
        self._rules.remove(rank, rule)
