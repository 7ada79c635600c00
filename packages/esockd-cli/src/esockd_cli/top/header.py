"""The lines at the top: which instance this is, how it is, and which view is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from esockd_cli.top.canvas import Style, width_of
from esockd_cli.top.state import View
from esockd_cli.top.text import (
    clip,
    format_age,
    format_bytes,
    format_clock,
    format_count,
    format_duration,
    to_cells,
)

if TYPE_CHECKING:
    from esockd_cli.top.canvas import Area, Span, Spans
    from esockd_cli.top.glyphs import Glyphs
    from esockd_cli.top.rates import Model
    from esockd_cli.top.state import State

LAGGING_S: Final = 0.1
NEARLY_ALL: Final = 0.9
GAP: Final = 3  # between two facts


def draw_title(area: Area, model: Model, state: State, glyphs: Glyphs, *, is_live: bool) -> None:
    """Draw the bar with the instance's name, the time, and whether the picture stands still."""
    area.put(0, 0, " " * area.width, Style.MARK)
    words = [f"every {state.interval_s:g} s"] if is_live and area.width >= 60 else []
    words += ["PAUSED"] * state.is_paused
    words += ["GONE"] * (model.lost is not None)
    seen = model.lost or model.frame
    words += [] if seen is None else [format_clock(seen.at)]
    right = area.put_right(area.width - 1, 0, [("  ".join(words), Style.MARK)])
    name = "" if model.frame is None else model.frame.instance.name
    area.put(1, 0, clip(to_cells(f"esockd  {name}"), right - 2, glyphs.ellipsis), Style.MARK)


def draw_facts(area: Area, model: Model, glyphs: Glyphs) -> int:
    """Draw how the instance is, as far as the area goes, and give how many lines that took."""
    x, y = 1, 0
    for spans in _facts(model, glyphs):
        length = width_of(spans)
        if x > 1 and x + length >= area.width:
            x, y = 1, y + 1
        x = area.put_spans(x, y, spans) + GAP
    return min(y + 1, area.height)


def draw_tabs(area: Area, state: State, summary: Spans) -> None:
    """Draw the numbered views, by their numbers alone where there is no room, and a summary to the right."""
    is_wide = area.width >= 70
    x = 1
    for view in View:
        is_shown = view == state.view
        label = f" {view.value} {view.name.capitalize()} " if is_wide or is_shown else f" {view.value} "
        x = area.put(x, 0, label, Style.MARK if is_shown else Style.PLAIN)
    if x + 2 + width_of(summary) < area.width:
        area.put_right(area.width - 1, 0, summary)


def _facts(model: Model, glyphs: Glyphs) -> list[list[Span]]:
    frame = model.frame
    if model.lost is not None:
        last = "" if frame is None else f", for {format_age(model.lost.at - frame.at)} now"
        return [[(f"does not answer{last}: {model.lost.reason}", Style.BAD)]]
    if frame is None:
        return [[("waiting for the first answer", Style.DIM)]]
    instance, stats = frame.instance, [each.stats for each in frame.listeners]
    lag_s = max((each.loop_lag for each in stats), default=0.0)
    facts = [
        _fact("up", format_age(instance.uptime)),
        _fact("pid", str(instance.pid)),
        _fact("loop lag", format_duration(lag_s, glyphs.micro), is_bad=lag_s >= LAGGING_S),
    ]
    if instance.workers:
        facts.insert(2, _fact("workers", str(instance.workers)))
    if model.cpu is not None:
        facts.append(_fact("cpu", f"{model.cpu:.0%}"))
    if instance.open_files is not None:
        limit = instance.open_file_limit
        of = "" if limit is None else f" of {format_count(limit)}"
        is_bad = limit is not None and instance.open_files >= limit * NEARLY_ALL
        facts.append(_fact("files", f"{format_count(instance.open_files)}{of}", is_bad=is_bad))
    if instance.memory_bytes is not None:
        facts.append(_fact("memory", format_bytes(instance.memory_bytes)))
    tracks = model.summed()
    facts.append(_fact("listeners", format_count(len(tracks))))
    facts.append(_fact("connections", format_count(sum(each.listener.stats.current_connections for each in tracks))))
    return facts


def _fact(label: str, value: str, *, is_bad: bool = False) -> list[Span]:
    return [(f"{label} ", Style.DIM), (value, Style.BAD if is_bad else Style.PLAIN)]
