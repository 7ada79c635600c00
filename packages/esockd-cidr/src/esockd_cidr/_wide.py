"""An immutable array of 128-bit integers; the standard library has none."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Final, overload

if TYPE_CHECKING:
    from collections.abc import Sequence

LOW: Final = (1 << 64) - 1


class WideArray:
    """Sorted integers of 128 bits, as two arrays of 64.

    The array of lower halves is kept only if one of them is not 0. Networks up to /64, which is how IPv6 is routed and
    delegated, thus take 8 bytes an entry instead of 16.

    Attributes:
        high: The higher halves.
        low: The lower halves, or None.
    """

    __slots__ = ("high", "low")

    def __init__(self, high: array[int], low: array[int] | None) -> None:
        self.high = high
        self.low = low if low and any(low) else None

    @classmethod
    def of(cls, values: Sequence[int]) -> WideArray:
        """The array of these integers."""
        return cls(array("Q", [value >> 64 for value in values]), array("Q", [value & LOW for value in values]))

    def find(self, value: int) -> int:
        """How many entries are at most the value: `bisect_right`, in C."""
        high = value >> 64
        end = bisect_right(self.high, high)
        if self.low is None:
            return end
        begin = bisect_left(self.high, high, 0, end)
        return bisect_right(self.low, value & LOW, begin, end)

    def __len__(self) -> int:
        return len(self.high)

    @overload
    def __getitem__(self, at: int) -> int: ...
    @overload
    def __getitem__(self, at: slice) -> WideArray: ...
    def __getitem__(self, at: int | slice) -> int | WideArray:
        if isinstance(at, slice):
            return WideArray(self.high[at], self.low and self.low[at])
        return self.high[at] << 64 | (self.low[at] if self.low else 0)

    def __add__(self, other: WideArray) -> WideArray:
        if self.low is None and other.low is None:
            return WideArray(self.high + other.high, None)
        return WideArray(self.high + other.high, self._lower() + other._lower())

    def _lower(self) -> array[int]:
        return self.low if self.low is not None else array("Q", bytes(8 * len(self.high)))
