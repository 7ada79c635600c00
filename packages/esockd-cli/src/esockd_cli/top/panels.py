"""What there is to know of one listener, in panels side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from esockd_cli.top.canvas import Style
from esockd_cli.top.frame import is_datagram
from esockd_cli.top.glyphs import bar
from esockd_cli.top.text import clip, clip_middle, format_clock, format_count, format_duration, format_rate, to_cells
from esockd_cli.top.views import quantile_span
from esockd_core import Refused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from esockd_cli.top.canvas import Area, Spans
    from esockd_cli.top.frame import RefusedClient
    from esockd_cli.top.glyphs import Glyphs
    from esockd_cli.top.rates import DurationsName, Track

T = TypeVar("T", int, float)
LEAST_WIDTH: Final = 36
GAP: Final = 3
GONE: Final = "gone already"
BOUND_WIDTH: Final = 11  # of the bound of a bucket
COUNT_WIDTH: Final = 9  # of how many are in it
LATENCIES: Final[tuple[tuple[str, DurationsName], ...]] = (
    ("accept", "accept_delays"),
    ("handshake", "handshakes"),
    ("loop lag", "loop_lags"),
)


@dataclass(frozen=True, slots=True)
class Panel:
    """A title, and lines that each have a left and a right end."""

    title: str
    lines: Sequence[tuple[Spans, Spans]]


def detail_panels(track: Track, glyphs: Glyphs) -> list[Panel]:
    """Everything about a listener but its last refused sockets."""
    datagrams = [_dropped(track), _unsent(track)] if is_datagram(track.listener) else []
    return [
        _refused(track), *datagrams, _ended(track), _latencies(track, glyphs), _sources(track), _sockets(track),
    ]  # fmt: skip


def distribution_panels(track: Track, glyphs: Glyphs, width: int) -> list[Panel]:
    """How the durations of the last minute are spread, for panels in an area of a width."""
    _, each = _arrange(width, len(LATENCIES))
    return [_distribution(f"{title}, last minute", track, name, glyphs, each) for title, name in LATENCIES]


def draw_panels(area: Area, panels: Sequence[Panel], glyphs: Glyphs) -> int:
    """Draw panels in as many columns as there is width for, each below the shortest, and give the line below all."""
    count, width = _arrange(area.width, len(panels))
    columns = [area.part(index * (width + GAP), width=width) for index in range(count)]
    ends = [0] * count
    for panel in panels:
        column = ends.index(min(ends))
        part = columns[column].part(y=ends[column])
        if part.height >= 2:
            ends[column] += _draw_panel(part, panel, glyphs) + 1
    return max(0, max(ends) - 1)


def _arrange(width: int, panels: int) -> tuple[int, int]:
    """How many columns of panels fit side by side, and how wide each is."""
    count = max(1, min((width + GAP) // (LEAST_WIDTH + GAP), panels))
    return count, (width - GAP * (count - 1)) // count


def _draw_panel(area: Area, panel: Panel, glyphs: Glyphs) -> int:
    area.put(0, 0, clip(panel.title.upper(), area.width, glyphs.ellipsis), Style.HEAD)
    lines = panel.lines[: area.height - 1]
    for y, (left, right) in enumerate(lines, start=1):
        x, end = 0, area.put_right(area.width, y, right) - 1
        for text, style in left:
            x = area.put(x, y, clip(to_cells(text), max(0, end - x), glyphs.ellipsis), style)
    return len(lines) + 1


def draw_refusals(area: Area, refusals: Sequence[RefusedClient], glyphs: Glyphs) -> None:
    """Draw the last refused sockets, newest first."""
    area.put(0, 0, "LAST REJECTS", Style.HEAD)
    if not refusals:
        area.put(0, 1, "nobody", Style.DIM)
    shown = refusals[::-1][: max(0, area.height - 1)]
    longest = max((len(to_cells(each.peer)) for each in shown), default=0)
    width = max(len(GONE), min(longest, area.width // 3))
    for y, each in enumerate(shown, start=1):
        area.put(0, y, format_clock(each.at), Style.DIM)
        area.put(10, y, clip_middle(to_cells(each.peer) or GONE, width, glyphs.ellipsis), Style.BOLD)
        area.put(12 + width, y, name_stage(each.stage), Style.BAD)
        reason = area.part(27 + width)
        reason.put(0, y, clip(to_cells(each.reason), reason.width, glyphs.ellipsis))


def name_stage(stage: str) -> str:
    """The counter of a refusal in words."""
    return stage.removeprefix("closed_").replace("_", " ")


def _counts(title: str, counts: dict[str, int], rates: dict[str, float], empty: str, style: Style) -> Panel:
    lines: list[tuple[Spans, Spans]] = [
        (
            [(to_cells(name), style)],
            [(format_count(count), Style.PLAIN), (f"{format_rate(rates.get(name, 0.0)):>7}/s", Style.DIM)],
        )
        for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]
    return Panel(title, lines or [([(empty, Style.DIM)], [])])


def _refused(track: Track) -> Panel:
    stats, rates = track.listener.stats, track.rates
    counts = {name_stage(stage): count for stage in Refused if (count := getattr(stats, stage))}
    if stats.closed_sys_limit:
        counts["failed accepts"] = stats.closed_sys_limit
    per_s = {} if rates is None else {name_stage(stage): rate for stage, rate in rates.refused.items()}
    per_s["failed accepts"] = 0.0 if rates is None else rates.accept_errors
    return _counts("Rejected", counts, per_s, "nobody", Style.BAD)


def _ended(track: Track) -> Panel:
    ended = {} if track.rates is None else track.rates.ended
    return _counts("Ended", track.listener.stats.shutdown_counts, ended, "none", Style.PLAIN)


def _dropped(track: Track) -> Panel:
    dropped = {} if track.rates is None else track.rates.dropped
    return _counts(
        "Dropped datagrams", _in_words(track.listener.stats.datagrams_dropped), _in_words(dropped), "none", Style.BAD
    )


def _unsent(track: Track) -> Panel:
    unsent = {} if track.rates is None else track.rates.unsent
    return _counts("Not sent", track.listener.stats.datagrams_unsent, unsent, "none", Style.WARN)


def _in_words(counts: dict[str, T]) -> dict[str, T]:
    return {name.replace("_", " "): count for name, count in counts.items()}


def _sources(track: Track) -> Panel:
    lines: list[tuple[Spans, Spans]] = [
        (
            [(to_cells(source.source), Style.PLAIN)],
            [
                (format_count(source.attempts), Style.PLAIN),
                (f"{format_count(source.open_connections):>7} open", Style.DIM),
            ],
        )
        for source in track.listener.sources
    ]
    return Panel("Top sources", lines or [([("none", Style.DIM)], [])])


def _latencies(track: Track, glyphs: Glyphs) -> Panel:
    lines: list[tuple[Spans, Spans]] = [([("", Style.PLAIN)], [(f"{'p50':>10}{'p99':>11}", Style.DIM)])]
    for title, name in LATENCIES:
        (half, half_style), (most, most_style) = (quantile_span(track, name, part, glyphs) for part in (50, 99))
        lines.append(([(title, Style.PLAIN)], [(f"{half:>10}", half_style), (f"{most:>11}", most_style)]))
    return Panel("Latency, last minute", lines)


def _sockets(track: Track) -> Panel:
    stats = track.listener.stats
    lines: list[tuple[Spans, Spans]] = [
        ([(to_cells(bound), Style.PLAIN)], []) for bound in track.listener.status.addresses
    ]
    if stats.entering:
        lines.append(([("entering", Style.PLAIN)], [(format_count(stats.entering), Style.PLAIN)]))
    if stats.accept_queue_length is not None:
        limit = "" if stats.accept_queue_limit is None else f" of {format_count(stats.accept_queue_limit)}"
        queue = f"{format_count(stats.accept_queue_length)}{limit}"
        lines.append(([("accept queue", Style.PLAIN)], [(queue, Style.PLAIN)]))
    return Panel("Sockets", lines or [([("none", Style.DIM)], [])])


def _distribution(title: str, track: Track, name: DurationsName, glyphs: Glyphs, width: int) -> Panel:
    durations = track.durations(name)
    highest = max(durations.counts, default=0)
    if not highest:
        return Panel(title, [([("none", Style.DIM)], [])])
    first = next(index for index, count in enumerate(durations.counts) if count)
    last = max(index for index, count in enumerate(durations.counts) if count)
    lines: list[tuple[Spans, Spans]] = []
    for index in range(first, last + 1):
        count = durations.counts[index]
        is_above = index == len(durations.bounds)
        bound_s = durations.bounds[min(index, len(durations.bounds) - 1)]
        label = f"{'>' if is_above else glyphs.at_most} {format_duration(bound_s, glyphs.micro)}"
        full, rest = bar(count / highest, max(0, width - BOUND_WIDTH - COUNT_WIDTH), glyphs)
        lines.append(
            (
                [(f"{label:<{BOUND_WIDTH}}", Style.PLAIN), (full, Style.IN), (rest, Style.DIM)],
                [(format_count(count), Style.PLAIN)],
            )
        )
    return Panel(title, lines)
