"""A rehearsal in words."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from esockd_cli._columns import clean, table
from esockd_cli._settings import write_value
from esockd_cli._summary import by_name
from esockd_cli.top.live import describe_peer
from esockd_cli.top.text import format_age

if TYPE_CHECKING:
    from esockd_core import OptionChange, RehearsalReport


def describe_rehearsal(name: str, report: RehearsalReport) -> str:
    """A report as it is shown.

    Args:
        name: What the listener is called.
        report: The report.
    """
    left = f", {format_age(report.remaining)} left" if report.state == "running" else ""
    why = f": {report.reason}" if report.reason else ""
    sources = ", ".join(f"{each.source} ({each.refused})" for each in report.top_sources)
    rows = [
        ("listener", name),
        ("rehearsal", f"{report.state} after {format_age(report.elapsed)}{left}{why}"),
        *(("rule in front", rule) for rule in report.rules),
        *(("change", describe_option(change)) for change in report.changes),
        ("clients", str(report.seen)),
        ("would refuse", _counts(report.refused)),
        ("of them served", _counts(report.newly_refused)),
        ("would let in", _counts(report.newly_admitted)),
        *([("would wait", str(report.waiting))] if report.waiting else []),
        *([("top sources", sources)] if sources else []),
        *([("begun again", _workers(report.begun_again))] if report.begun_again else []),
    ]
    lines = [f"{title:15}{clean(text)}" for title, text in rows]
    examples = [
        (
            time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(each.at)),
            describe_peer(each.client),
            each.stage,
            each.reason,
        )
        for each in report.examples
    ]
    return "\n".join([*lines, *(["", *table(("TIME", "CLIENT", "STAGE", "REASON"), examples)] if examples else [])])


def describe_option(change: OptionChange) -> str:
    """A change of an option."""
    return f"{change.name}: {write_value(change.name, change.old)} -> {write_value(change.name, change.new)}"


def progress_of(report: RehearsalReport) -> str:
    """A rehearsal in one line, for a terminal that shows how it goes."""
    return f"{report.seen} clients, would refuse {_counts(report.refused)}, {format_age(report.remaining)} left"


def _workers(count: int) -> str:
    return f"by {count} new worker{'s'[: count != 1]}"


def _counts(counts: dict[str, int]) -> str:
    return f"{sum(counts.values())}{by_name(counts)}"
