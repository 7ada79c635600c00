"""Tokens that callers hold while they wait for another limit, and may give back."""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

    from ._units import Units


class Hold:
    """Tokens that one caller holds.

    Attributes:
        cost: How many, in units.
        full_at: The moment at which time has refilled them, and all that were taken before.
        units: What both are counted in.
    """

    __slots__ = ("cost", "full_at", "units")

    def __init__(self, cost: int, full_at: int, units: Units) -> None:
        self.cost: int = cost
        self.full_at: int = full_at
        self.units: Units = units


class Holds:
    """The holds of each bucket, in the order in which they were taken."""

    __slots__ = ("_by_bucket",)

    def __init__(self) -> None:
        self._by_bucket: dict[Hashable, dict[Hold, None]] = {}

    def add(self, bucket: Hashable, hold: Hold) -> None:
        """Note a hold."""
        self._by_bucket.setdefault(bucket, {})[hold] = None

    def remove(self, bucket: Hashable, hold: Hold) -> None:
        """Forget a hold whose tokens are kept."""
        holds = self._by_bucket[bucket]
        del holds[hold]
        if not holds:
            del self._by_bucket[bucket]

    def give_back(self, bucket: Hashable, hold: Hold, now: int) -> int:
        """Forget a hold; return the units of it that time has not refilled, which are given back.

        Those that were taken after it are refilled earlier then.
        """
        returned = min(hold.cost, max(hold.full_at - now, 0))
        if returned:
            for later in takewhile(lambda each: each is not hold, reversed(self._by_bucket[bucket])):
                later.full_at -= returned
        self.remove(bucket, hold)
        return returned
