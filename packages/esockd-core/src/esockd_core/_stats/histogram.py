"""Durations in fixed buckets: cheap to note, bounded in space, and addable over listeners and processes."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from esockd_core._plain import PlainValue

if TYPE_CHECKING:
    from collections.abc import Callable

# From what an idle loop takes to what a human gives up on; about 2.5 from one to the next, as Prometheus is used to.
BOUNDS_S: Final = (
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
# From a request and its answer to a connection that is kept for a week.
LIFETIME_BOUNDS_S: Final = (0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3_600.0, 21_600.0, 86_400.0, 604_800.0)


@dataclass(frozen=True, slots=True)
class Durations(PlainValue):
    """A snapshot of a histogram.

    Attributes:
        counts: The number of durations in each bucket: up to each of `bounds`, and above all of them.
        total: The sum of all durations, in seconds.
        bounds: The upper bounds of the buckets, in seconds.
    """

    counts: tuple[int, ...]
    total: float
    bounds: tuple[float, ...] = BOUNDS_S

    @property
    def count(self) -> int:
        """How many durations were noted."""
        return sum(self.counts)

    def quantile(self, part: float) -> float | None:
        """The duration in seconds that this part of all durations did not exceed, as the upper bound of its bucket.

        Args:
            part: From 0 to 1, such as 0.99.

        Returns:
            The bound; None if nothing was noted, infinity above all bounds.
        """
        if not 0 <= part <= 1:
            raise ValueError(f"part is {part!r}; it takes a number from 0 to 1")
        wanted, seen = part * self.count, 0
        for count, bound_s in zip(self.counts, (*self.bounds, float("inf")), strict=True):
            seen += count
            if count and seen >= wanted:
                return bound_s
        return None


NO_DURATIONS: Final = Durations((0,) * (len(BOUNDS_S) + 1), 0.0)
NO_LIFETIMES: Final = Durations((0,) * (len(LIFETIME_BOUNDS_S) + 1), 0.0, LIFETIME_BOUNDS_S)


class Histogram:
    """The live numbers behind `Durations`.

    Args:
        bounds_s: The upper bounds of the buckets, in seconds.

    Attributes:
        note_later: Keeps a duration, in seconds, until `settle`: the cheapest way, where each call is felt. Somebody
            settles now and then.
    """

    __slots__ = ("_bounds_s", "_counts", "_later", "_total_s", "note_later")

    def __init__(self, bounds_s: tuple[float, ...] = BOUNDS_S) -> None:
        self._bounds_s = bounds_s
        self._counts = [0] * (len(bounds_s) + 1)
        self._total_s = 0.0
        self._later: list[float] = []
        self.note_later: Callable[[float], None] = self._later.append

    def note(self, duration_s: float) -> None:
        """Note a duration, in seconds."""
        self._counts[bisect_left(self._bounds_s, duration_s)] += 1
        self._total_s += duration_s

    def note_several(self, duration_s: float, times: int) -> None:
        """Note a duration that several had."""
        self._counts[bisect_left(self._bounds_s, duration_s)] += times
        self._total_s += duration_s * times

    def settle(self) -> None:
        """Note the durations that were kept. One below zero, by a clock that was set back, counts as none."""
        if not self._later:
            return
        durations_s = sorted(self._later)  # each bucket is a slice of them, which is cheaper than a search for each
        self._later.clear()
        begin = 0
        for bucket, bound_s in enumerate(self._bounds_s):
            end = bisect_right(durations_s, bound_s, begin)
            self._counts[bucket] += end - begin
            begin = end
        self._counts[-1] += len(durations_s) - begin
        self._total_s += sum(durations_s[bisect_left(durations_s, 0.0) :])

    def snapshot(self) -> Durations:
        """The numbers at this moment."""
        self.settle()
        return Durations(tuple(self._counts), self._total_s, self._bounds_s)
