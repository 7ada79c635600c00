"""The lines at the bottom: what keys do, the filter that is typed, where a replay is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from esockd_cli.top.canvas import Style
from esockd_cli.top.glyphs import bar
from esockd_cli.top.text import format_age, to_cells

if TYPE_CHECKING:
    from esockd_cli.top.canvas import Area
    from esockd_cli.top.glyphs import Glyphs
    from esockd_cli.top.player import Position
    from esockd_cli.top.state import State

Hints = tuple[tuple[str, str], ...]
KEYS: Final[Hints] = (
    ("q", "quit"),
    ("?", "help"),
    ("tab", "detail"),
    ("1-5", "views"),
    ("s", "sort"),
    ("/", "filter"),
    ("space", "pause"),
    ("+-", "interval"),
    ("[]", "listener"),
)
REPLAY_KEYS: Final[Hints] = (
    ("q", "quit"),
    ("?", "help"),
    ("space", "play"),
    (",.", "step"),
    ("<>", "minute"),
    ("+-", "speed"),
    ("tab", "detail"),
    ("1-5", "views"),
    ("s", "sort"),
    ("/", "filter"),
)


def draw_footer(
    area: Area, state: State, glyphs: Glyphs, *, position: Position | None, note: str, is_small: bool
) -> int:
    """Draw the last lines, and give the line where they begin; a small screen has none but those that speak."""
    y = area.height
    if state.draft is not None:
        y -= 1
        x = area.put(area.put(1, y, "filter: ", Style.HEAD), y, state.draft, Style.BOLD)
        x = area.put(x, y, " ", Style.MARK)
        area.put(x + 2, y, "Enter keeps it, Esc takes it back", Style.DIM)
    elif not is_small:
        y -= 1
        _draw_hints(area, y, KEYS if position is None else REPLAY_KEYS, note)
    if position is not None:
        y -= 1
        _draw_position(area, y, position, glyphs)
    return y


def _draw_hints(area: Area, y: int, hints: Hints, note: str) -> None:
    right = area.put_right(area.width - 1, y, [(note, Style.WARN)]) if note else area.width
    x = 1
    for key, meaning in hints:
        if x + len(key) + 1 + len(meaning) + 1 >= right:
            break
        x = area.put(area.put(x, y, key, Style.BOLD) + 1, y, meaning, Style.DIM) + 3


def _draw_position(area: Area, y: int, position: Position, glyphs: Glyphs) -> None:
    state = f"{glyphs.playing} playing" if position.is_playing else f"{glyphs.paused} paused"
    speed = f"{state} {position.speed:g}x"
    right = f"{format_age(position.passed_s)} of {format_age(position.length_s)}"
    width = area.width - len(to_cells(speed)) - len(right) - 6
    x = area.put(1, y, speed, Style.BOLD) + 2
    part = 1.0 if not position.length_s else position.passed_s / position.length_s
    full, rest = bar(part, max(0, width), glyphs)
    x = area.put(area.put(x, y, full, Style.IN), y, rest, Style.DIM)
    area.put_right(area.width - 1, y, [(right, Style.PLAIN)])
