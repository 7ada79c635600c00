"""All rules of a list, compiled: what changes keep up to date, and what lookups read."""

from __future__ import annotations

from bisect import insort
from itertools import pairwise
from typing import TYPE_CHECKING

from esockd_cidr._family import Family
from esockd_cidr._network import MAPPED_FIRST, MAPPED_LAST, Network
from esockd_cidr._order import Order, default_rank
from esockd_cidr._rule import Action, Scope
from esockd_cidr._table import GAP, TableV4, TableV6
from esockd_cidr._view import View

if TYPE_CHECKING:
    from collections.abc import Sequence

    from esockd_cidr._rule import Rule


class Ruleset:
    """Rules in their order, with the tables compiled from them."""

    __slots__ = ("_scopes", "_v4", "_v6", "order")

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.order = Order(rules)
        self._scopes: dict[Scope, list[int]] = {scope: [] for scope in Scope}
        v4: list[tuple[Network, int]] = []
        v6: list[tuple[Network, int]] = []
        for rule, rank in zip(self.order.rules, self.order.ranks, strict=True):
            target = rule.target
            if isinstance(target, Scope):
                self._scopes[target].append(rank)
            else:
                (v4 if target.version == 4 else v6).append((target, rank))
        self._v4 = Family(TableV4, v4)
        self._v6 = Family(TableV6, v6)

    def find(self, rule: Rule) -> int | None:
        """The rank of a rule, or None if the list does not hold it."""
        target = rule.target
        candidates = self._scopes[target] if isinstance(target, Scope) else self._family(target).at(target.first)
        return next((rank for rank in candidates if self.order.rule(rank) == rule), None)

    def insert(self, position: int, rule: Rule) -> bool:
        """Insert a rule; when that takes new ranks for all rules, change nothing and return False."""
        rank = self.order.insert(position, rule)
        if rank is None:
            return False
        target = rule.target
        if isinstance(target, Scope):
            insort(self._scopes[target], rank)
            self._hold_tables()
        else:
            self._family(target).add(target, rank, self._network)
        return True

    def remove(self, rank: int) -> None:
        """Remove the rule with this rank."""
        rule = self.order.rule(rank)
        target = rule.target
        if isinstance(target, Scope):
            self._scopes[target].remove(rank)
            self._hold_tables()
        else:
            self._family(target).remove(target, rank, self._network)
        self.order.remove(rank, rule)

    def view(self, default: int) -> View:
        """What lookups read. `default` is the rank of the default."""
        for_all, for_unix = self._scopes[Scope.ALL], self._scopes[Scope.UNIX]
        fallback = for_all[0] if for_all else default
        unix = min(for_unix[0], fallback) if for_unix else fallback
        settled = fallback if len(self.order) == len(for_all) else None
        return View(settled, fallback, unix, self._v4.table, self._v6.table)

    def deciding(self) -> set[int]:
        """The ranks that decide about at least one address; the default's may be among them."""
        view = self.view(default_rank(Action.DENY))
        v6 = [*view.v6.spans(), (1 << 128, GAP)]
        ranks = {rank for _, rank in view.v4.spans()}
        ranks.update(  # an IPv4-mapped address is never looked up as such, but as the IPv4 address
            rank for (start, rank), (end, _) in pairwise(v6) if start < MAPPED_FIRST or end > MAPPED_LAST + 1
        )
        return {min(rank, view.fallback) for rank in ranks} | {view.unix}

    def _hold_tables(self) -> None:
        """Leave the tables as they are to the views made so far: these have another fallback."""
        self._v4.hold()
        self._v6.hold()

    def _family(self, network: Network) -> Family[TableV4] | Family[TableV6]:
        return self._v4 if network.version == 4 else self._v6

    def _network(self, rank: int) -> Network:
        target = self.order.rule(rank).target
        assert isinstance(target, Network)  # noqa: S101 (only networks are in families)
        return target
