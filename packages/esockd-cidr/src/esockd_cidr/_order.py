"""The order of the rules: each has a rank, which changes of other rules leave alone.

A rank is a number that grows with the position, followed by one bit that is set for `allow`. Tables need hold nothing
but ranks: the least rank decides, and its last bit is the decision.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from typing import TYPE_CHECKING, Final

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
    """Rules with their ranks, first to last.

    Attributes:
        rules: The rules.
        ranks: Their ranks.
    """

    __slots__ = ("_latest", "ranks", "rules")

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = list(rules)
        gap = NUMBERS // 2 // (len(self.rules) + 1)  # half of the numbers lie between the rules, the others around them
        begin = NUMBERS // 4 + gap
        self.ranks = array(
            "I", [begin + gap * at << 1 | (rule.action is Action.ALLOW) for at, rule in enumerate(self.rules)]
        )
        self._latest = -1

    def position(self, rank: int) -> int:
        """The position of the rule with this rank, from 0."""
        return bisect_left(self.ranks, rank)

    def rule(self, rank: int) -> Rule:
        """The rule with this rank."""
        return self.rules[bisect_left(self.ranks, rank)]

    def insert(self, position: int, rule: Rule) -> int | None:
        """Insert a rule and return its rank; when no number is left there, change nothing and return None."""
        before = self.ranks[position - 1] >> 1 if position else -1
        after = self.ranks[position] >> 1 if position < len(self.ranks) else NUMBERS
        if not position:
            number = after - STEP if self.ranks else NUMBERS // 2
        elif position == len(self.ranks):
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
        self.rules.insert(position, rule)
        self.ranks.insert(position, rank)
        return rank

    def remove(self, rank: int) -> None:
        """Remove the rule with this rank."""
        position = self.position(rank)
        del self.rules[position]
        del self.ranks[position]
