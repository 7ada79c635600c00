"""Results as a Markdown table and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.rounds import Series


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose source is aligned: the first column to the left, figures to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cells[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)),
        ]
        return f"| {' | '.join(padded)} |"

    rule = "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])])
    return "\n".join([line(header), f"|{rule}|", *(line(row) for row in rows)])


def figure(series: Series, digits: int) -> str:
    """Median and range; a `~` in front where the rounds disagree too much."""
    low, high = min(series.values), max(series.values)
    flag = "~ " if series.is_wide else ""
    return f"{flag}{series.middle:,.{digits}f} ({low:,.{digits}f}-{high:,.{digits}f})"


def as_json(results: Mapping[str, Series], ratios: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Every single figure, and what was made of them."""
    return {
        name: {
            "median": series.middle,
            "values": series.values,
            "spread": series.spread,
            "wide": series.is_wide,
            "ratios": dict(ratios.get(name, {})),
            "client": [sample.report for sample in series.samples],
        }
        for name, series in results.items()
    }
