"""Access rules as admission asks them: one list, two that both decide, or a few in front of the others."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from esockd_cidr import AccessList

if TYPE_CHECKING:
    from esockd_cidr import Match


class Allows(Protocol):
    """Judges the peer of a socket."""

    def allows(self, host: str, /) -> bool:
        """Whether it may come in."""
        ...


class Rules(Allows, Protocol):
    """Access rules; see `AccessList`."""

    def match(self, host: str, /) -> Match | None:
        """The deciding rule; None if no rule matches."""
        ...


class BothOf:
    """Two judges that both have to allow."""

    def __init__(self, first: Allows, second: Allows) -> None:
        self._judges = (first, second)

    def allows(self, host: str) -> bool:
        """Whether both allow."""
        return all(judge.allows(host) for judge in self._judges)


class RulesInFront:
    """Access rules with a few put before all others, which stay live.

    Args:
        front: Those that are asked first. Its default does not count.
        behind: The others.
    """

    __slots__ = ("_behind", "_denies_only", "_front")

    def __init__(self, front: AccessList, behind: AccessList) -> None:
        self._front = AccessList(front.rules)
        self._behind = behind
        self._denies_only = all(rule.action == "deny" for rule in front.rules)

    def allows(self, host: str) -> bool:
        """Whether the deciding rule allows."""
        if self._denies_only:  # as most do: this takes a third of the time
            if not self._front.allows(host):
                return False
        elif match := self._front.match(host):
            return match.action == "allow"
        return self._behind.allows(host)

    def denials_before(self, others: Rules) -> AccessList | None:
        """The rules in front, if they only deny and these are the others: the answer of the others is known then."""
        return self._front if self._denies_only and self._behind is others else None

    def match(self, host: str) -> Match | None:
        """The deciding rule, with its position in all of the rules."""
        if match := self._front.match(host):
            return match
        match = self._behind.match(host)
        return None if match is None else replace(match, index=match.index + len(self._front))
