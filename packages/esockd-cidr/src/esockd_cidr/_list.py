"""The ordered list of rules: it answers for an address, and changes while it is in use."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from socket import AF_INET, inet_pton
from threading import Lock
from typing import TYPE_CHECKING, Final, Literal

from esockd_cidr._address import Address, not_an_address
from esockd_cidr._errors import HitsNotCounted, InvalidPosition, UnknownRule
from esockd_cidr._order import default_rank
from esockd_cidr._rule import Action, Rule, RuleLike, to_action, to_rule
from esockd_cidr._rules import distinct, duplicate, parse_rules
from esockd_cidr._ruleset import Ruleset

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from esockd_cidr._address import Address
    from esockd_cidr._view import View

from_bytes: Final = int.from_bytes  # looked up once, not for each connection


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

    A list may change while other threads look up addresses: every lookup sees the rules before a change or after it.
    A change that raises changes nothing. Lists can be copied (`copy.copy`) and pickled.

    Args:
        rules: Rules, texts such as `deny 10.0.0.0/8`, or pairs such as `("deny", "10.0.0.0/8")`.
        default: What happens to an address that no rule matches.
        count_hits: Count how often each rule decides, for `hits()`. This makes lookups a little slower.

    Raises:
        InvalidRule: If a rule or the default is not valid.
        DuplicateRule: If a rule appears twice with the same action.
    """

    __slots__ = ("_changing", "_default", "_hits", "_ruleset", "_view")

    def __init__(
        self, rules: Iterable[RuleLike] = (), default: Action | str = Action.ALLOW, count_hits: bool = False
    ) -> None:
        self._changing = Lock()
        self._hits: dict[int, int] | None = {} if count_hits else None
        self._default = to_action(default, "default")
        self._ruleset = Ruleset(distinct(rules))
        self._view = self._look()

    @classmethod
    def parse(cls, text: str, default: Action | str = Action.ALLOW, count_hits: bool = False) -> AccessList:
        r"""Read a whole text of rules, such as a file of nginx's `allow` and `deny` lines.

        A rule ends with a semicolon or with its line, `#` begins a comment, empty lines mean nothing.

            >>> print(AccessList.parse("allow 10.0.0.0/8;  # the office\ndeny all;"), end="")
            allow 10.0.0.0/8;
            deny all;

        Raises:
            InvalidRule: If a rule is not valid; the error names it and its line.
            DuplicateRule: If a rule appears twice with the same action; the error names it and the second line.
        """
        return cls(parse_rules(text), default, count_hits)

    @property
    def default(self) -> Action:
        """What happens to an address that no rule matches."""
        return self._default

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules in their order."""
        with self._changing:
            return tuple(self._ruleset.order.rules)

    def allows(self, address: Address, version: Literal[4, 6] | None = None) -> bool:
        """Whether the rules let an address in.

        Where no rule depends on the address (there are no rules, or only rules for `all`), the address is not read at
        all, and a value that is not an address gets the same answer as any other.

            >>> office = AccessList(["deny 10.0.0.66", "allow 10.0.0.0/8"], default="deny")
            >>> office.allows("10.1.2.3"), office.allows("10.0.0.66"), office.allows("2001:db8::1")
            (True, False, False)

        Args:
            address: Text (an IPv6 zone id is ignored; `unix:`, or `unix:` and a path, is a Unix peer), 4 or 16 packed
                bytes, an integer, or an object of `ipaddress`. An IPv4-mapped IPv6 address is the IPv4 address.
            version: 4 or 6, with an integer and with nothing else.

        Raises:
            InvalidAddress: If it is not an address.
        """
        if self._hits is not None:
            with self._changing:  # a rule that goes meanwhile is not counted
                return self._decide(address, version) & 1 == 1
        view = self._view
        if view.settled is not None:
            rank = view.settled
        elif type(address) is not str or version is not None:
            rank = view.rank(address, version)
        elif ":" not in address:
            # Nearly every peer is one of these two, in straight lines: one runs for each connection before all else.
            try:
                value = from_bytes(inet_pton(AF_INET, address))
            except (OSError, ValueError):
                raise not_an_address(address) from None
            table = view.v4
            page = table.pages[value >> table.shift]
            rank = page[-bisect_right(page, value, 0, len(page) >> 1)]
            if rank > view.fallback:  # noqa: PLR1730 (calling min() takes five times as long)
                rank = view.fallback
        else:
            rank = view.rank_of_text_v6(address)
        return rank & 1 == 1

    def match(self, address: Address, version: Literal[4, 6] | None = None) -> Match | None:
        """The rule that decides about an address, or None when the default does.

            >>> AccessList(["deny 10.0.0.66", "allow 10.0.0.0/8"]).match("10.1.2.3").index
            1

        Args:
            address: As for `allows`; not read where no rule depends on it.
            version: 4 or 6, with an integer and with nothing else.

        Raises:
            InvalidAddress: If it is not an address.
        """
        with self._changing:  # rank and position have to be of one moment
            rank = self._decide(address, version)
            if rank >= default_rank(Action.DENY):
                return None
            index, rule = self._ruleset.order.find(rank)
        return Match(rule.action, rule, index)

    def prepend(self, rule: RuleLike) -> None:
        """Insert a rule before all others.

        Raises:
            InvalidRule: If it is not a rule.
            DuplicateRule: If the list holds it already, with the same action.
        """
        self._insert(0, rule)

    def append(self, rule: RuleLike) -> None:
        """Insert a rule after all others.

        Raises:
            InvalidRule: If it is not a rule.
            DuplicateRule: If the list holds it already, with the same action.
        """
        self._insert(None, rule)

    def insert(self, index: int, rule: RuleLike) -> None:
        """Insert a rule at a position, from 0; the rule there and those after it move back by one.

        Raises:
            InvalidRule: If it is not a rule.
            DuplicateRule: If the list holds it already, with the same action.
            InvalidPosition: If the position is negative or beyond the end of the list.
        """
        self._insert(index, rule)

    def remove(self, rule: RuleLike) -> None:
        """Remove a rule.

        Raises:
            InvalidRule: If it is not a rule.
            UnknownRule: If the list holds no such rule with that action.
        """
        rule = to_rule(rule)
        with self._changing:
            rank = self._ruleset.find(rule)
            if rank is None:
                raise UnknownRule("the list holds no such rule with that action", option="rule", value=rule)
            self._ruleset.remove(rank)
            self._view = self._look()
            if self._hits is not None:
                self._hits.pop(rank, None)

    def replace(self, rules: Iterable[RuleLike], default: Action | str | None = None) -> None:
        """Replace all rules at once, and the default if one is given. Hit counts start again from 0.

        Raises:
            InvalidRule: If a rule or the default is not valid.
            DuplicateRule: If a rule appears twice with the same action.
        """
        action = self._default if default is None else to_action(default, "default")
        ruleset = Ruleset(distinct(rules))
        with self._changing:
            self._default = action
            self._ruleset = ruleset
            self._view = self._look()
            if self._hits is not None:
                self._hits = {}

    def shadowed(self) -> list[Rule]:
        """The rules that can never decide, because earlier ones, alone or together, match every peer they match.

        >>> [str(rule) for rule in AccessList(["deny 10.0.0.0/8", "allow 10.1.0.0/16"]).shadowed()]
        ['allow 10.1.0.0/16']
        """
        with self._changing:
            deciding = self._ruleset.deciding()
            order = self._ruleset.order
            return [rule for rule, rank in zip(order.rules, order.ranks, strict=True) if rank not in deciding]

    def hits(self) -> dict[Rule | None, int]:
        """How often each rule has decided, in the order of the rules; the default comes last, under None.

        Raises:
            HitsNotCounted: If the list was made without `count_hits`.
        """
        with self._changing:
            if self._hits is None:
                raise HitsNotCounted("this list does not count its hits", hint="Make it with count_hits=True.")
            order = self._ruleset.order
            counts: dict[Rule | None, int] = {
                rule: self._hits.get(rank, 0) for rule, rank in zip(order.rules, order.ranks, strict=True)
            }
            counts[None] = self._hits.get(default_rank(self._default), 0)
            return counts

    def __len__(self) -> int:
        return len(self._ruleset.order)

    def __bool__(self) -> bool:
        """True: even a list without rules decides, by its default."""
        return True

    def __iter__(self) -> Iterator[Rule]:
        return iter(self.rules)

    def __contains__(self, rule: RuleLike) -> bool:
        rule = to_rule(rule)
        with self._changing:
            return self._ruleset.find(rule) is not None

    def __str__(self) -> str:
        """The rules as a file would have them; a default of `deny`, which has no such form, is a comment."""
        comment = "# everyone else: deny\n" if self._default is Action.DENY else ""
        return "".join([*(f"{rule};\n" for rule in self.rules), comment])

    def __repr__(self) -> str:
        return f"<AccessList: {len(self)} rules, default {self._default}>"

    def __reduce__(self) -> tuple[type[AccessList], tuple[tuple[Rule, ...], Action, bool]]:
        return type(self), (self.rules, self._default, self._hits is not None)

    def _insert(self, index: int | None, given: RuleLike) -> None:
        rule = to_rule(given)
        with self._changing:
            count = len(self._ruleset.order)
            position = count if index is None else index
            if not 0 <= position <= count:
                reason = f"a rule goes to a position from 0, before all others, to {count}, after them"
                raise InvalidPosition(reason, option="index", value=position)
            if self._ruleset.find(rule) is not None:
                raise duplicate(rule)
            if not self._ruleset.insert(position, rule):
                self._rank_anew(position, rule)
            self._view = self._look()

    def _rank_anew(self, position: int, rule: Rule) -> None:
        old = self._ruleset.order
        rules = old.rules
        self._ruleset = Ruleset([*rules[:position], rule, *rules[position:]])
        if self._hits is not None:
            ranks = self._ruleset.order.ranks
            new_rank = dict(zip(old.ranks, ranks[:position] + ranks[position + 1 :], strict=True))
            self._hits = {new_rank.get(rank, rank): count for rank, count in self._hits.items()}

    def _decide(self, address: Address, version: Literal[4, 6] | None) -> int:
        """The rank that decides, which is counted if hits are."""
        rank = self._view.rank(address, version)
        if self._hits is not None:
            self._hits[rank] = self._hits.get(rank, 0) + 1
        return rank

    def _look(self) -> View:
        return self._ruleset.view(default_rank(self._default))
