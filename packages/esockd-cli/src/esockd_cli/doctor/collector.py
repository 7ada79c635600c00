"""The check of how long instances stand still in Python's garbage collector."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from esockd_cli.doctor.findings import Finding, NotSeen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from esockd_cli.doctor.patient import Patient

MUCH: Final = 0.05  # of the time that an instance has run
LONG_S: Final = 0.1


def look_at_collector(patient: Patient) -> Iterator[Finding | NotSeen]:
    """What instances tell of their collector."""
    for process in patient.processes:
        if process.pid is None:
            continue
        if process.collector is None:
            yield NotSeen(
                process.name, "only instances of esockd open and esockd run without workers tell of their collector"
            )
            continue
        seconds, longest = float(process.collector["seconds"]), float(process.collector["longest"])
        elapsed = float(process.collector["elapsed"])
        if longest >= LONG_S or seconds >= MUCH * max(elapsed, 1.0):
            yield Finding(
                "warning",
                process.name,
                f"it has spent {seconds:.1f} s of {elapsed:.0f} s in Python's garbage collector, and once "
                f"{longest:.3f} s at a time",
                "Meanwhile no connection is served; a full collection looks at every object of the program.",
                "gc.set_threshold(50_000, 20, 100) in your module, or fewer objects that refer to each other",
            )
