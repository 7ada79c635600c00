"""A histogram of durations: 4,608 buckets, each within 0.4 % of what falls into it, from a nanosecond to an hour."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# The buckets of HdrHistogram (Gil Tene): exact below 2^7 ns, then 128 of one width for each power of two.
BITS: Final = 7
WIDTH: Final = 1 << BITS
LARGEST: Final = (1 << 42) - 1  # nanoseconds; more than an hour counts as that
BUCKETS: Final = (43 - BITS) * WIDTH


class Histogram:
    """How many durations fell into each bucket, and the largest of them."""

    __slots__ = ("_buckets", "count", "largest", "total")

    def __init__(self) -> None:
        self._buckets = [0] * BUCKETS
        self.count: int = 0
        self.total: int = 0
        self.largest: int = 0

    def add(self, value: int) -> None:
        """Count a duration in nanoseconds."""
        if value > self.largest:  # noqa: PLR1730 (max takes three times as long)
            self.largest = value
        shift = value.bit_length() - BITS - 1
        if shift > 0:
            if value > LARGEST:
                shift, value = 42 - BITS - 1, LARGEST
            self._buckets[(shift << BITS) + (value >> shift)] += 1
        else:
            self._buckets[max(value, 0)] += 1
        self.count += 1
        self.total += value

    def merge(self, counted: Mapping[str, Any]) -> None:
        """Add another one, from its `as_dict`."""
        for index, count in counted["buckets"]:
            self._buckets[index] += count
        self.count += counted["count"]
        self.total += counted["total"]
        self.largest = max(self.largest, counted["largest"])

    def as_dict(self) -> dict[str, Any]:
        """Everything, in what JSON can hold."""
        buckets = [(index, count) for index, count in enumerate(self._buckets) if count]
        return {"buckets": buckets, "count": self.count, "total": self.total, "largest": self.largest}

    def percentile(self, percent: float) -> int:
        """The duration that so many of a hundred do not exceed, in nanoseconds; 0 where nothing was counted."""
        wanted = max(1, -int(-self.count * percent // 100))
        return next((value for value, count in self.cumulated() if count >= wanted), 0)

    def cumulated(self) -> Iterator[tuple[int, int]]:
        """The middle of each bucket that has any, in nanoseconds, and how many are in it and below."""
        seen = 0
        for index, count in enumerate(self._buckets):
            if count:
                seen += count
                yield min(_middle(index), self.largest), seen

    @property
    def mean(self) -> float:
        """The mean, in nanoseconds; 0 where nothing was counted."""
        return self.total / self.count if self.count else 0.0


def _middle(index: int) -> int:
    shift = (index >> BITS) - 1
    if shift <= 0:
        return index
    return ((index & (WIDTH - 1) | WIDTH) << shift) + (1 << shift >> 1)


def write_distribution(histogram: Histogram) -> str:
    """The distribution as plotters of HdrHistogram read it: milliseconds, and how many of all do not exceed them."""
    lines = ["       Value     Percentile TotalCount 1/(1-Percentile)", ""]
    for value, seen in histogram.cumulated():
        part = seen / histogram.count
        beyond = "inf" if seen == histogram.count else f"{1 / (1 - part):.2f}"
        lines.append(f"{value / 1e6:12.6f} {part:14.12f} {seen:10d} {beyond:>14}")
    lines += [
        f"#[Mean    = {histogram.mean / 1e6:12.6f}, StdDeviation   = {'-':>12}]",
        f"#[Max     = {histogram.largest / 1e6:12.6f}, Total count    = {histogram.count:12d}]",
        f"#[Buckets = {BUCKETS // WIDTH:12d}, SubBuckets     = {WIDTH:12d}]",
    ]
    return "\n".join(lines) + "\n"
