"""Charts of what listeners did over the last intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from esockd_cli.top.canvas import Style
from esockd_cli.top.columns import TREND_STYLES
from esockd_cli.top.glyphs import chart
from esockd_cli.top.rates import total_trend
from esockd_cli.top.text import format_bytes, format_rate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from esockd_cli.top.canvas import Area
    from esockd_cli.top.glyphs import Glyphs
    from esockd_cli.top.rates import Measure, Track

LEAST_WIDTH: Final = 30
LEAST_HEIGHT: Final = 4
MOST_HEIGHT: Final = 16
GAP: Final = 3
TITLES: Final[dict[Measure, str]] = {
    "accepts": "ACCEPTS/S",
    "bytes_in": "IN/S",
    "bytes_out": "OUT/S",
    "refusals": "REJECTS/S",
}


def draw_charts(area: Area, tracks: Sequence[Track], glyphs: Glyphs) -> None:
    """Draw what listeners did together, in as many charts as there is room for."""
    count = len(TITLES)
    across = max(fit for fit in (1, 2, count) if fit == 1 or area.width >= fit * (LEAST_WIDTH + GAP))
    down = max(1, min(count // across, (area.height + 1) // (LEAST_HEIGHT + 1)))
    width = (area.width - GAP * (across - 1)) // across
    height = min((area.height + 1) // down - 1, MOST_HEIGHT)
    for place, measure in enumerate(list(TITLES)[: across * down]):
        row, column = divmod(place, across)
        part = area.part(column * (width + GAP), row * (height + 1), width, height)
        _draw_chart(part, measure, total_trend(tracks, measure), glyphs)


def _draw_chart(area: Area, measure: Measure, trend: list[float | None], glyphs: Glyphs) -> None:
    known = [value for value in trend[-area.width :] if value is not None]
    write = format_bytes if measure.startswith("bytes") else format_rate
    end = area.put(0, 0, TITLES[measure], Style.HEAD)
    now = trend[-1] if trend else None
    area.put(end + 2, 0, glyphs.unknown if now is None else write(now), Style.BOLD)
    if known:
        area.put_right(area.width, 0, [(f"peak {write(max(known))}", Style.DIM)])
    for y, row in enumerate(chart(trend, area.width, area.height - 1, glyphs), start=1):
        area.put(0, y, row, TREND_STYLES[measure])
