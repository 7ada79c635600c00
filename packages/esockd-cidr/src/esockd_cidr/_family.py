"""The networks of one address family: where each starts, to find what a change touches, and the compiled table."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Generic, TypeVar

from esockd_cidr._flatten import flatten
from esockd_cidr._table import GAP, TableV4, TableV6

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, MutableSequence

    from esockd_cidr._network import Network

AnyTable = TypeVar("AnyTable", TableV4, TableV6)


class Family(Generic[AnyTable]):
    """The networks of one family with the ranks of their rules; a lower rank decides first.

    Attributes:
        table: What lookups read; each change replaces it.
    """

    __slots__ = ("_firsts", "_ranks", "table")

    def __init__(self, kind: type[AnyTable], networks: list[tuple[Network, int]]) -> None:
        blocks = sorted((network.first, network.prefixlen, rank, network.last) for network, rank in networks)
        firsts = [first for first, _, _, _ in blocks]
        self._firsts: MutableSequence[int] = array("I", firsts) if kind.width == 32 else firsts
        self._ranks = array("I", [rank for _, _, rank, _ in blocks])
        inside = ((first, last, rank) for first, _, rank, last in blocks)
        self.table: AnyTable = kind.compile(*flatten(0, (1 << kind.width) - 1, GAP, inside))

    def at(self, first: int) -> array[int]:
        """The ranks of the rules whose networks start at an address."""
        begin = end = bisect_left(self._firsts, first)
        while end < len(self._firsts) and self._firsts[end] == first:  # at most two for each prefix length
            end += 1
        return self._ranks[begin:end]

    def add(self, network: Network, rank: int, network_of: Callable[[int], Network]) -> None:
        """Add the network of a rule."""
        at = bisect_left(self._firsts, network.first)
        self._firsts.insert(at, network.first)
        self._ranks.insert(at, rank)
        self._refresh(network, network_of)

    def remove(self, network: Network, rank: int, network_of: Callable[[int], Network]) -> None:
        """Remove the network of a rule."""
        at = self._ranks.index(rank, bisect_left(self._firsts, network.first))
        del self._firsts[at]
        del self._ranks[at]
        self._refresh(network, network_of)

    def _refresh(self, changed: Network, network_of: Callable[[int], Network]) -> None:
        """Recompile the addresses of one network."""
        base = GAP
        inside: list[tuple[int, int, int, int]] = []
        for rank in self._touching(changed):
            network = network_of(rank)
            if network.last >= changed.last and network.prefixlen <= changed.prefixlen:
                base = min(base, rank)
            elif network.first >= changed.first:
                inside.append((network.first, network.prefixlen, rank, network.last))
        inside.sort()
        spans = flatten(changed.first, changed.last, base, ((first, last, rank) for first, _, rank, last in inside))
        self.table = self.table.with_spans(*spans, changed.last)

    def _touching(self, network: Network) -> Iterator[int]:
        """The ranks of all networks inside and around a network, and of a few next to it."""
        begin = bisect_left(self._firsts, network.first)
        yield from self._ranks[begin : bisect_right(self._firsts, network.last, begin)]
        first = network.first
        while first:
            first &= (
                first - 1
            )  # a network around it starts at the same address with some of the lowest set bits cleared
            yield from self.at(first)
