"""What lookups read: everything that decides about an address. It is never changed, only replaced."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from socket import AF_INET6, inet_pton
from typing import TYPE_CHECKING, Final, Literal

from esockd_cidr._address import Address, parse_address

if TYPE_CHECKING:
    from esockd_cidr._table import TableV4, TableV6

from_bytes: Final = int.from_bytes


@dataclass(frozen=True, slots=True)
class View:
    """The rules at one moment, for lookups.

    Attributes:
        settled: The rank that decides about every peer, if no rule depends on the address; otherwise None.
        fallback: The rank of the first rule for all peers, or of the default.
        unix: The rank that decides about Unix peers.
        v4: The table of the IPv4 networks.
        v6: The table of the IPv6 networks.
    """

    settled: int | None
    fallback: int
    unix: int
    v4: TableV4
    v6: TableV6

    def rank(self, address: Address, version: Literal[4, 6] | None) -> int:
        """The rank that decides about an address.

        Raises:
            InvalidAddress: If it is not an address, and the answer depends on it.
        """
        if self.settled is not None:
            return self.settled
        family, value = parse_address(address, version)
        if not family:
            return self.unix
        rank = self.v4.rank(value) if family == 4 else self.v6.rank(value)
        if rank > self.fallback:
            return self.fallback
        return rank

    def rank_of_text_v6(self, address: str) -> int:
        """The rank that decides about an address as text with a colon, at less cost than `rank`.

        Raises:
            InvalidAddress: If it is not an address.
        """
        try:
            value = from_bytes(inet_pton(AF_INET6, address))
        except (OSError, ValueError):  # it has a zone id, is a Unix peer, or is no address
            return self.rank(address, None)
        high = value >> 64
        if not high:  # where the IPv4-mapped addresses are
            return self.rank(value, 6)
        table = self.v6
        starts, ranks = table.pages[bisect_right(table.bounds, value) - 1]
        rank = ranks[bisect_right(starts.high, high) - 1] if starts.low is None else ranks[starts.find(value) - 1]
        if rank > self.fallback:
            return self.fallback
        return rank
