"""Fair comparison: every case once a round, in an order that differs each round, and ratios within a round.

A machine's speed drifts while a benchmark runs. Two figures of one round were taken seconds apart and drift together,
so their ratio says more than the ratio of two averages; the median over rounds then drops the odd one out.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

WIDE_SPREAD = 0.25  # of the median: beyond it the middle half of the rounds disagrees too much to quote a figure


@dataclass(frozen=True)
class Sample:
    """One measurement.

    Attributes:
        value: In the benchmark's unit; less is better.
        report: What the load client counted, with latencies.
    """

    value: float
    report: dict[str, Any]


@dataclass(frozen=True)
class Series:
    """What one case showed in all rounds, in the order of the rounds."""

    samples: tuple[Sample, ...]

    @property
    def values(self) -> list[float]:
        """The figures, round by round."""
        return [sample.value for sample in self.samples]

    @property
    def middle(self) -> float:
        """The median."""
        return median(self.values)

    @property
    def spread(self) -> float:
        """Width of the middle half of the rounds, as a share of the median."""
        ordered = sorted(self.values)
        quarter = len(ordered) // 4
        width = ordered[-1 - quarter] - ordered[quarter]
        return width / self.middle if width else 0.0

    @property
    def is_wide(self) -> bool:
        """Whether the rounds disagree too much for the figure to be quoted."""
        return self.spread > WIDE_SPREAD

    def ratio_to(self, baseline: Series) -> float:
        """The median over the rounds of this case's figure divided by the baseline's of the same round.

        Not a number when the baseline cost nothing that could be measured.
        """
        pairs = zip(self.values, baseline.values, strict=True)
        return median(mine / its if its else math.nan for mine, its in pairs)

    def p99_us(self) -> float:
        """The median over the rounds of the 99th percentile of latency, in microseconds."""
        return median(float(sample.report["latency_us"]["p99"]) for sample in self.samples)


def interleaved(
    names: Iterable[str], rounds: int, measure: Callable[[str], Sample], progress: Callable[[str], None]
) -> dict[str, Series]:
    """Measure every case `rounds` times.

    Args:
        names: Of the cases.
        rounds: How often each is measured.
        measure: Takes one measurement of the case of that name.
        progress: Is told what happens, for a reader who waits.
    """
    order = list(names)
    samples: dict[str, list[Sample]] = {name: [] for name in order}
    shuffle = random.Random(rounds).shuffle
    for number in range(rounds):
        shuffle(order)
        for name in order:
            sample = measure(name)
            samples[name].append(sample)
            progress(f"round {number + 1}/{rounds}  {name}: {sample.value:.4g}")
    return {name: Series(tuple(taken)) for name, taken in samples.items()}
