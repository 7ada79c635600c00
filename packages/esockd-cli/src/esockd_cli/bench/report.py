"""What came of a load, for people and for scripts."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from esockd_cli._summary import format_bytes
from esockd_cli.bench.tally import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from esockd_cli.bench.asking import Asked
    from esockd_cli.bench.histogram import Histogram
    from esockd_cli.bench.plan import Plan
    from esockd_cli.bench.tally import Tally

PERCENTILES: Final = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9}
BUSY: Final = 0.9
NS: Final = 1e9


def lines_of(asked: Asked, plans: Sequence[Plan], tally: Tally) -> Iterator[str]:
    """The report for people."""
    what = {"echo": "messages", "connect": "connections", "idle": "connections"}[asked.mode]
    loop = "uvloop" if find_spec("uvloop") else "asyncio"
    rate = "" if asked.rate is None else f", {asked.rate:g}/s"
    yield f"{asked.target}: {asked.mode}, {asked.connections} connections, {len(plans)} processes on {loop}{rate}"
    per_s = tally.completed / tally.elapsed_s if tally.elapsed_s else 0.0
    if asked.mode == "idle":
        yield f"{what:12}{tally.completed} made, {tally.connected} open after {tally.elapsed_s:.1f} s"
    else:
        volume = f", {format_bytes(int(per_s * asked.size))}/s each way" if asked.size else ""
        yield f"{what:12}{tally.completed} in {tally.elapsed_s:.2f} s, {per_s:.0f}/s{volume}"
    if asked.mode != "idle":
        yield f"latency     {_listed(tally.latencies)}"
    if tally.connects.count and asked.mode != "connect":
        yield f"connecting  {_listed(tally.connects)}"
    if tally.lateness.count:
        yield f"sent late   {_listed(tally.lateness)}"
    errors = tally.errors.total()
    yield f"errors      {errors or 'none'}"
    for kind, count in tally.errors.most_common():
        yield f"  {kind:18}{count}  {KINDS.get(kind, '')}"
    if tally.busiest >= BUSY and asked.rate is None:
        yield (
            f"note: a load process was busy {tally.busiest:.0%} of the time, and the server may be quicker than this: "
            "give more --processes"
        )


def fields_of(asked: Asked, plans: Sequence[Plan], tally: Tally) -> dict[str, Any]:
    """The report for scripts, with times in seconds."""
    return {
        "target": asked.target,
        "host": plans[0].host,
        "mode": asked.mode,
        "connections": asked.connections,
        "processes": len(plans),
        "size": asked.size,
        "rate": asked.rate,
        "elapsed": tally.elapsed_s,
        "completed": tally.completed,
        "per_second": tally.completed / tally.elapsed_s if tally.elapsed_s else 0.0,
        "connected": tally.connected,
        "latency": _percentiles(tally.latencies),
        "connecting": _percentiles(tally.connects),
        "lateness": _percentiles(tally.lateness),
        "errors": dict(tally.errors),
        "cpu": tally.cpu_s,
        "busiest": tally.busiest,
    }


def _percentiles(histogram: Histogram) -> dict[str, float] | None:
    if not histogram.count:
        return None
    percentiles = {name: histogram.percentile(percent) / NS for name, percent in PERCENTILES.items()}
    return {"count": histogram.count, "mean": histogram.mean / NS, **percentiles, "max": histogram.largest / NS}


def _listed(histogram: Histogram) -> str:
    if not histogram.count:
        return "-"
    percentiles = {name: histogram.percentile(percent) for name, percent in PERCENTILES.items()} | {
        "max": histogram.largest
    }
    return "  ".join(f"{name} {format_duration(value)}" for name, value in percentiles.items())


def format_duration(ns: int) -> str:
    """A duration with three digits, such as "1.25 ms"."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if ns >= size:
            value = ns / size
            return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"
    return f"{ns} ns"
