"""Draw the plots of docs/performance.md from the tables in benchmarks/results.

Usage: make plots

Each plot is one column of one recorded table: a bar for the median of each row, and a line for the range over the
rounds where it is recorded. Ours are in colour. Nothing is left out of a table but the rows that the page says.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RECORDS = ROOT / "benchmarks" / "results"
FOLDER = ROOT / "docs" / "plots"
NUMBER = re.compile(r"~? ?([\d,]+(?:\.\d+)?)(?: \(([\d,.]+)-([\d,.]+)\))?")

WIDTH, LABELS, FIGURES, TOP, ROW, BAR = 760, 230, 90, 46, 24, 15  # pixels
SCALE = WIDTH - LABELS - FIGURES
STYLE = "text { font: 13px system-ui, sans-serif; fill: #24292f } .title { font-weight: 600 } .axis { fill: #57606a }"
OURS, OTHERS, RANGE = "#0b7285", "#adb5bd", "#495057"


@dataclass(frozen=True)
class Plot:
    """Which column of which table is drawn, and as what.

    Attributes:
        name: Of the file, without `.svg`.
        record: Of the file in benchmarks/results, without `.md`.
        heading: Over the table.
        column: How the heading of the column begins.
        title: Over the plot.
        rows: A pattern of the rows to draw.
        ours: A pattern of the rows that are ours.
        by_size: Whether the least is drawn first; else rows stay in the order of the table.
    """

    name: str
    record: str
    heading: str
    column: str
    title: str
    rows: str = ""
    ours: str = "esockd(?! on Erlang)"
    by_size: bool = True


@dataclass(frozen=True)
class Bar:
    """One row: what it is, its median, and the least and the most of all rounds."""

    label: str
    median: float
    least: float
    most: float


PLOTS = (
    Plot("echo", "echo", "Echo: one message out and back", "CPU µs", "A message out and back: CPU µs"),
    Plot(
        "connect", "echo", "Connect, one message out and back, close", "CPU µs", "A connection with a message: CPU µs"
    ),
    Plot("idle", "echo", "Private memory of a connection that is idle", "bytes", "An idle connection: bytes of memory"),
    Plot("tls-echo", "tls", "echo", "CPU µs", "A message out and back over TLS: CPU µs"),
    Plot(
        "datagrams", "datagram", "64 peers that play ping-pong", "CPU µs", "A datagram out and back, 64 peers: CPU µs"
    ),
    Plot("forward", "forward", "echo", "CPU µs", "A message forwarded, out and back: CPU µs"),
    Plot(
        "unread", "memory", "echo", "MiB grown", "Clients that never read: MiB more memory", ours="coroutine|callback"
    ),
    Plot(
        "rules",
        "cidr",
        "One lookup among 100,000 networks of IPv4, address as text",
        "µs/op",
        "An address among 100,000 rules: CPU µs",
        rows="^(?!ipaddress)",
    ),
    Plot(
        "million",
        "million",
        "The curve",
        "bytes",
        "Memory of the server by connections held: bytes for each",
        ours=".",
        by_size=False,
    ),
    Plot("rates", "ratelimit", "", "µs", "A token of a bucket, granted: CPU µs"),
)


def main() -> None:
    """Entry point."""
    FOLDER.mkdir(exist_ok=True)
    for plot in PLOTS:
        (FOLDER / f"{plot.name}.svg").write_text(drawn(plot))


def drawn(plot: Plot) -> str:
    """The plot of what is recorded now."""
    return to_svg(plot, read_bars(plot, (RECORDS / f"{plot.record}.md").read_text()))


def read_bars(plot: Plot, record: str) -> list[Bar]:
    """The rows of a plot in the order in which they are drawn.

    Raises:
        ValueError: If the record has no such table or column, or a cell is not a number.
    """
    _, found, part = f"\n{record}".partition(f"\n## {plot.heading}\n") if plot.heading else ("", "x", record)
    if not found:  # a part of a part
        _, found, part = record.partition(f"\n### {plot.heading}\n")
    table = re.search(r"(^\|.*\n)+", part, re.MULTILINE) if found else None
    if table is None:
        raise ValueError(f"{plot.record}.md has no table under {plot.heading!r}")
    head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in table[0].splitlines())
    columns = [number for number, cell in enumerate(head) if number and cell.startswith(plot.column)]
    if not columns:
        raise ValueError(f"{plot.record}.md: the table under {plot.heading!r} has no column {plot.column!r}")
    bars = []
    for row in rows:
        if re.search(plot.rows, row[0]):
            cell = NUMBER.fullmatch(row[columns[0]])
            if cell is None:
                raise ValueError(f"{plot.record}.md: {row[0]} has {row[columns[0]]!r}, which is not a number")
            median, least, most = (float((text or cell[1]).replace(",", "")) for text in cell.groups())
            bars.append(Bar(row[0], median, least, most))
    return sorted(bars, key=lambda bar: bar.median) if plot.by_size else bars


def to_svg(plot: Plot, bars: list[Bar]) -> str:
    """A chart of horizontal bars from zero, on one linear scale."""
    height = TOP + ROW * len(bars) + 14
    pixels = SCALE / (max(bar.most for bar in bars) or 1)
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(plot.title)}">',
        f"<style>{STYLE}</style>",
        '<rect width="100%" height="100%" rx="6" fill="#ffffff"/>',
        f'<text class="title" x="16" y="28">{escape(plot.title)}</text>',
        f'<text class="axis" x="{WIDTH - 16}" y="28" text-anchor="end">less is better</text>',
    ]
    for number, bar in enumerate(bars):
        top = TOP + ROW * number
        base = top + BAR - 3
        color = OURS if re.search(plot.ours, bar.label) else OTHERS
        most = LABELS + max(bar.most, bar.median) * pixels
        lines.append(
            f'<text x="{LABELS - 10}" y="{base}" text-anchor="end">{escape(bar.label.replace("`", ""))}</text>'
        )
        lines.append(f'<rect x="{LABELS}" y="{top}" width="{bar.median * pixels:.1f}" height="{BAR}" fill="{color}"/>')
        if bar.most > bar.least:
            path = f"M{LABELS + bar.least * pixels:.1f} {top + BAR / 2}H{most:.1f}"
            lines.append(f'<path d="{path}" stroke="{RANGE}" stroke-width="2"/>')
        lines.append(f'<text x="{most + 8:.1f}" y="{base}">{bar.median:,.{digits(bar.median)}f}</text>')
    return "\n".join([*lines, "</svg>", ""])


def digits(figure: float) -> int:
    """How many decimals a figure has: two at most, and none beyond its third digit."""
    return 0 if figure >= 100 or figure == 0 else 1 if figure >= 10 else 2


if __name__ == "__main__":
    main()
