"""First match over nested networks, as disjoint spans that each know their winner.

Networks nest or are disjoint. The least rank along one chain of networks therefore decides about an address, and the
winner changes only where a network begins or ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def flatten(first: int, last: int, base: int, networks: Iterable[tuple[int, int, int]]) -> tuple[list[int], list[int]]:
    """Cut the addresses from `first` to `last` where the winner changes.

    Args:
        first: The lowest address.
        last: The highest address.
        base: The least rank that covers all of them.
        networks: First address, last address and rank of each network inside, sorted by first address, a network
            before those inside it.

    Returns:
        Where each span starts, and the rank that wins there; neighbours differ.
    """
    starts, ranks = [first], [base]
    open_networks = [(last, base)]

    def begin(at: int, rank: int) -> None:
        if starts[-1] == at:
            starts.pop()
            ranks.pop()
        if not ranks or ranks[-1] != rank:
            starts.append(at)
            ranks.append(rank)

    for network_first, network_last, rank in networks:
        while open_networks[-1][0] < network_first:
            end, _ = open_networks.pop()
            begin(end + 1, open_networks[-1][1])
        winner = min(rank, open_networks[-1][1])
        begin(network_first, winner)
        open_networks.append((network_last, winner))
    while len(open_networks) > 1:
        end, _ = open_networks.pop()
        if end < last:
            begin(end + 1, open_networks[-1][1])
    return starts, ranks
