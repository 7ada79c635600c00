"""The networks of one address family: where each starts, to find what a change touches, and the compiled table."""

from __future__ import annotations

from array import array
from collections import Counter
from typing import TYPE_CHECKING, Generic, TypeVar

from esockd_cidr._blocks import Blocks
from esockd_cidr._flatten import flatten
from esockd_cidr._table import GAP, TableV4, TableV6

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from esockd_cidr._network import Network

AnyTable = TypeVar("AnyTable", TableV4, TableV6)


class Family(Generic[AnyTable]):
    """The networks of one family with the ranks of their rules; a lower rank decides first.

    Attributes:
        table: What lookups read. A change within one of its pages changes it, and any other replaces it.
    """

    __slots__ = ("_is_held", "_lengths", "_networks", "table")

    def __init__(self, kind: type[AnyTable], networks: list[tuple[Network, int]]) -> None:
        blocks = sorted((network.first, network.prefixlen, rank, network.last) for network, rank in networks)
        firsts = [first for first, _, _, _ in blocks]
        ranks = array("I", [rank for _, _, rank, _ in blocks])
        self._networks = Blocks(array("I", firsts) if kind.width == 32 else firsts, ranks)
        self._lengths = Counter(prefixlen for _, prefixlen, _, _ in blocks)
        inside = ((first, last, rank) for first, _, rank, last in blocks)
        self.table: AnyTable = kind.compile(*flatten(0, (1 << kind.width) - 1, GAP, inside))
        self._is_held = False

    def at(self, first: int) -> Iterator[int]:
        """The ranks of the rules whose networks start at an address."""
        return self._networks.between(first, first)  # at most two for each prefix length

    def add(self, network: Network, rank: int, network_of: Callable[[int], Network]) -> None:
        """Add the network of a rule."""
        self._networks.insert(network.first, rank)
        self._lengths[network.prefixlen] += 1
        self._refresh(network, network_of)

    def remove(self, network: Network, rank: int, network_of: Callable[[int], Network]) -> None:
        """Remove the network of a rule."""
        self._networks.remove(network.first, rank)
        self._lengths[network.prefixlen] -= 1
        self._refresh(network, network_of)

    def hold(self) -> None:
        """Keep the table as it is: the next change makes another."""
        self._is_held = True

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
        self.table = self.table.with_spans(*spans, changed.last, in_place=not self._is_held)
        self._is_held = False

    def _touching(self, network: Network) -> Iterator[int]:
        """The ranks of all networks inside and around a network, and of a few next to it."""
        yield from self._networks.between(network.first, network.last)
        width = self.table.width
        around = (width - length for length, count in self._lengths.items() if count and length < network.prefixlen)
        for first in {network.first >> bits << bits for bits in around} - {network.first}:
            yield from self._networks.between(first, first)
