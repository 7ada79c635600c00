"""The ordered list of rules, which answers for an address and changes while it is in use."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from socket import AF_INET, inet_pton
from threading import Lock
from typing import TYPE_CHECKING, Final, Literal

from esockd_cidr._address import Address, not_an_address
from esockd_cidr._errors import CidrError, DuplicateRule, InvalidPosition, InvalidRule, UnknownRule
from esockd_cidr._order import default_rank
from esockd_cidr._rule import Action, Rule, RuleLike, parse_rules, to_action, to_rule
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

    A list may change while other threads look addresses up: every lookup sees the rules before a change or after it.
    A change that raises changes nothing. Lists can be copied (`copy.copy`) and pickled.

    Args:
        rules: Rules, texts such as `deny 10.0.0.0/8`, or pairs such as `("deny", "10.0.0.0/8")`.
        default: What happens to an address that no rule matches.
        count_hits: Count for each rule how often it decided, for `hits()`. It makes lookups a little slower.

    Raises:
        InvalidRule: A rule or the default is none.
        DuplicateRule: A rule appears twice with the same action.
    """

    __slots__ = ("_changing", "_default", "_hits", "_ruleset", "_view")

    def __init__(
        self, rules: Iterable[RuleLike] = (), default: Action | str = Action.ALLOW, count_hits: bool = False
    ) -> None:
        self._changing = Lock()
        self._hits: dict[int, int] | None = {} if count_hits else None
        self._default = to_action(default)
        self._ruleset = Ruleset(_distinct(rules))
        self._view = self._look()

    @classmethod
    def parse(cls, text: str, default: Action | str = Action.ALLOW, count_hits: bool = False) -> AccessList:
        r"""Read a whole text of rules, such as a file of nginx's `allow` and `deny` lines.

        A rule ends with a semicolon or with its line, `#` begins a comment, empty lines mean nothing.

            >>> print(AccessList.parse("allow 10.0.0.0/8;  # the office\ndeny all;"), end="")
            allow 10.0.0.0/8;
            deny all;

        Raises:
            InvalidRule: A rule is none; the error names it and its line.
            DuplicateRule: A rule appears twice with the same action; the error names it and the second line.
        """
        rules: dict[Rule, None] = {}
        for line, rule in parse_rules(text):
            if rule in rules:
                raise DuplicateRule(rule, line)
            rules[rule] = None
        return cls(rules, default, count_hits)

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

        Where no rule asks for the address (there are none, or only rules for `all`), it is not read at all, and what is
        no address gets the same answer as everything else.

            >>> office = AccessList(["deny 10.0.0.66", "allow 10.0.0.0/8"], default="deny")
            >>> office.allows("10.1.2.3"), office.allows("10.0.0.66"), office.allows("2001:db8::1")
            (True, False, False)

        Args:
            address: Text (an IPv6 zone id is ignored; `unix:`, or `unix:` and a path, is a Unix peer), 4 or 16 packed
                bytes, an integer, or an object of `ipaddress`. An IPv4-mapped IPv6 address is the IPv4 address.
            version: 4 or 6, with an integer and with nothing else.

        Raises:
            InvalidAddress: It is no address.
        """
        view = self._view
        if view.settled is not None:
            rank = view.settled
        elif type(address) is str and ":" not in address and version is None:
            # Nearly every peer: one straight line, because it runs for each connection before anything else does.
            try:
                value = from_bytes(inet_pton(AF_INET, address))
            except (OSError, ValueError):
                raise not_an_address(address) from None
            table = view.v4
            page = value >> table.shift
            rank = table.ranks[page][bisect_right(table.starts[page], value) - 1]
            if rank > view.fallback:  # noqa: PLR1730 (calling min() takes five times as long)
                rank = view.fallback
        else:
            rank = view.rank(address, version)
        if self._hits is not None:
            with self._changing:
                self._count(rank)
        return rank & 1 == 1

    def match(self, address: Address, version: Literal[4, 6] | None = None) -> Match | None:
        """The rule that decides about an address, or None when the default does.

            >>> AccessList(["deny 10.0.0.66", "allow 10.0.0.0/8"]).match("10.1.2.3").index
            1

        Args:
            address: As for `allows`, and as there not read where no rule asks for it.
            version: 4 or 6, with an integer and with nothing else.

        Raises:
            InvalidAddress: It is no address.
        """
        with self._changing:  # rank and position have to be of one moment
            rank = self._view.rank(address, version)
            self._count(rank)
            if rank >= default_rank(Action.DENY):
                return None
            order = self._ruleset.order
            index = order.position(rank)
            rule = order.rules[index]
        return Match(rule.action, rule, index)

    def prepend(self, rule: RuleLike) -> None:
        """Put a rule before all others.

        Raises:
            InvalidRule: It is none.
            DuplicateRule: The list holds it already, with the same action.
        """
        self._insert(0, rule)

    def append(self, rule: RuleLike) -> None:
        """Put a rule behind all others.

        Raises:
            InvalidRule: It is none.
            DuplicateRule: The list holds it already, with the same action.
        """
        self._insert(None, rule)

    def insert(self, index: int, rule: RuleLike) -> None:
        """Put a rule at a position, from 0; the rule that stands there and those behind it move back by one.

        Raises:
            InvalidRule: It is none.
            DuplicateRule: The list holds it already, with the same action.
            InvalidPosition: The position is negative or beyond the end of the list.
        """
        self._insert(index, rule)

    def remove(self, rule: RuleLike) -> None:
        """Take a rule out.

        Raises:
            InvalidRule: It is none.
            UnknownRule: The list holds no such rule with that action.
        """
        rule = to_rule(rule)
        with self._changing:
            rank = self._ruleset.find(rule)
            if rank is None:
                raise UnknownRule(rule)
            self._ruleset.remove(rank)
            self._view = self._look()
            if self._hits is not None:
                self._hits.pop(rank, None)

    def replace(self, rules: Iterable[RuleLike], default: Action | str | None = None) -> None:
        """Exchange all rules at once, and the default if one is given. Hits are counted anew.

        Raises:
            InvalidRule: A rule or the default is none.
            DuplicateRule: A rule appears twice with the same action.
        """
        action = self._default if default is None else to_action(default)
        ruleset = Ruleset(_distinct(rules))
        with self._changing:
            self._default = action
            self._ruleset = ruleset
            self._view = self._look()
            if self._hits is not None:
                self._hits = {}

    def shadowed(self) -> list[Rule]:
        """The rules that can never decide, because those before them, one or several together, match all they match.

        >>> [str(rule) for rule in AccessList(["deny 10.0.0.0/8", "allow 10.1.0.0/16"]).shadowed()]
        ['allow 10.1.0.0/16']
        """
        with self._changing:
            deciding = self._ruleset.deciding()
            order = self._ruleset.order
            return [rule for rule, rank in zip(order.rules, order.ranks, strict=True) if rank not in deciding]

    def hits(self) -> dict[Rule | None, int]:
        """How often each rule has decided, in the order of the rules; last, under None, how often the default has.

        Raises:
            CidrError: The list was made without `count_hits`.
        """
        with self._changing:
            if self._hits is None:
                raise CidrError("this list does not count; make it with count_hits=True")
            order = self._ruleset.order
            counts: dict[Rule | None, int] = {
                rule: self._hits.get(rank, 0) for rule, rank in zip(order.rules, order.ranks, strict=True)
            }
            counts[None] = self._hits.get(default_rank(self._default), 0)
            return counts

    def __len__(self) -> int:
        return len(self._ruleset.order.rules)

    def __bool__(self) -> bool:
        """True: a list without rules still decides, by its default."""
        return True

    def __iter__(self) -> Iterator[Rule]:
        return iter(self.rules)

    def __contains__(self, rule: RuleLike) -> bool:
        rule = to_rule(rule)
        with self._changing:
            return self._ruleset.find(rule) is not None

    def __str__(self) -> str:
        """The rules as they would be written in a file; the default, which has no such form, as a comment if `deny`."""
        comment = "# everyone else: deny\n" if self._default is Action.DENY else ""
        return "".join([*(f"{rule};\n" for rule in self.rules), comment])

    def __repr__(self) -> str:
        return f"<AccessList: {len(self)} rules, default {self._default}>"

    def __reduce__(self) -> tuple[type[AccessList], tuple[tuple[Rule, ...], Action, bool]]:
        return type(self), (self.rules, self._default, self._hits is not None)

    def _insert(self, index: int | None, given: RuleLike) -> None:
        rule = to_rule(given)
        with self._changing:
            rules = self._ruleset.order.rules
            position = len(rules) if index is None else index
            if not 0 <= position <= len(rules):
                raise InvalidPosition(position, len(rules))
            if self._ruleset.find(rule) is not None:
                raise DuplicateRule(rule)
            if not self._ruleset.insert(position, rule):
                self._rank_anew(position, rule)
            self._view = self._look()

    def _rank_anew(self, position: int, rule: Rule) -> None:
        old = self._ruleset.order
        self._ruleset = Ruleset([*old.rules[:position], rule, *old.rules[position:]])
        if self._hits is not None:
            ranks = self._ruleset.order.ranks
            new_rank = dict(zip(old.ranks, ranks[:position] + ranks[position + 1 :], strict=True))
            self._hits = {new_rank.get(rank, rank): count for rank, count in self._hits.items()}

    def _count(self, rank: int) -> None:
        if self._hits is not None:
            self._hits[rank] = self._hits.get(rank, 0) + 1

    def _look(self) -> View:
        return self._ruleset.view(default_rank(self._default))


def _distinct(rules: Iterable[RuleLike]) -> list[Rule]:
    if isinstance(rules, str):
        raise InvalidRule(
            rules, "rules are a list of texts, pairs or Rules; read one text of many with AccessList.parse"
        )
    fresh: dict[Rule, None] = {}
    for given in rules:
        rule = to_rule(given)
        if rule in fresh:
            raise DuplicateRule(rule)
        fresh[rule] = None
    return list(fresh)
