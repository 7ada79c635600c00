"""A snapshot as the text that Prometheus reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from anyio.lowlevel import checkpoint
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import generate_latest

from esockd_cli.metrics.table import METRICS, PROGRAM_METRICS, transport_of
from esockd_core import Durations

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prometheus_client.metrics_core import Metric as Family

    from esockd_cli.metrics.table import Metric, ProgramMetric
    from esockd_core import InstanceSnapshot, ListenerSnapshot

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
OF_LISTENERS: Final = ("listener", "transport")


async def write_text(snapshot: InstanceSnapshot) -> bytes:
    """Write all metrics. The event loop has its turn after each.

    Args:
        snapshot: The program at one moment.
    """
    parts: list[bytes] = []
    for family in _families(snapshot):
        parts.append(generate_latest(_Only(family)))
        await checkpoint()
    return b"".join(parts)


class _Only:
    """One family, as a registry of Prometheus gives its families."""

    def __init__(self, family: Family) -> None:
        self._family = family

    def collect(self) -> Sequence[Family]:
        return (self._family,)


def _families(snapshot: InstanceSnapshot) -> Iterator[Family]:
    for metric in METRICS:
        yield _of_listeners(metric, snapshot.listeners)
    for of_program in PROGRAM_METRICS:
        yield _of_program(of_program, snapshot)


def _of_listeners(metric: Metric, listeners: Sequence[ListenerSnapshot]) -> Family:
    sums: dict[tuple[str, ...], float | Durations] = {}
    for each in listeners:
        place = (each.status.name, transport_of(each))
        for labels, value in metric.read(each):
            key = (*place, *labels)
            sums[key] = value if key not in sums else _add(sums[key], value)
    return _fill(metric, (*OF_LISTENERS, *metric.labels), sums)


def _of_program(metric: ProgramMetric, snapshot: InstanceSnapshot) -> Family:
    sums: dict[tuple[str, ...], float | Durations] = {}
    for labels, value in metric.read(snapshot):
        if value is not None:
            sums[labels] = _add(sums.get(labels, 0.0), value)
    return _fill(metric, metric.labels, sums)


def _add(one: float | Durations, other: float | Durations) -> float | Durations:
    if isinstance(one, Durations) and isinstance(other, Durations):
        counts = tuple(a + b for a, b in zip(one.counts, other.counts, strict=True))
        return Durations(counts, one.total + other.total, one.bounds)
    if isinstance(one, Durations) or isinstance(other, Durations):
        raise TypeError(f"{one!r} and {other!r} are not of one metric")
    return one + other


def _fill(
    metric: Metric | ProgramMetric, names: Sequence[str], sums: dict[tuple[str, ...], float | Durations]
) -> Family:
    if metric.kind == "histogram":
        histogram = HistogramMetricFamily(metric.name, metric.text, labels=names)
        for labels, value in sums.items():
            if isinstance(value, Durations):
                histogram.add_metric(labels, _buckets(value), value.total)
        return histogram
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(metric.name, metric.text, labels=names)
    for labels, value in sums.items():
        if not isinstance(value, Durations):
            family.add_metric(labels, value)
    return family


def _buckets(durations: Durations) -> list[tuple[str, float]]:
    """Bounds as text, each with all durations up to it."""
    buckets: list[tuple[str, float]] = []
    up_to = 0
    for bound, count in zip((*durations.bounds, float("inf")), durations.counts, strict=True):
        up_to += count
        buckets.append(("+Inf" if bound == float("inf") else str(bound), up_to))
    return buckets
