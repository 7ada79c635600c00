"""Pictures made of characters: bars, sparklines and charts, in blocks or in ASCII."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Terminals whose fonts lack the lower eighths of a block.
WITHOUT_BLOCKS: Final = ("linux", "vt", "ansi", "cons", "dumb", "Eterm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Glyphs:
    """The characters of one kind of terminal.

    Attributes:
        levels: From the lowest to the full block.
        parts: From the shortest to the full part of a horizontal bar.
        track: The empty part of a bar.
    """

    levels: str
    parts: str
    track: str
    rule: str
    ellipsis: str
    ascending: str
    descending: str
    cursor: str
    micro: str
    at_most: str
    unknown: str
    playing: str
    paused: str
    is_ascii: bool


BLOCKS: Final = Glyphs(
    levels="▁▂▃▄▅▆▇█",
    parts="╸━",
    track="─",
    rule="─",
    ellipsis="…",
    ascending="▲",
    descending="▼",
    cursor="▸",
    micro="µ",
    at_most="≤",
    unknown="–",  # noqa: RUF001
    playing="▶",
    paused="‖",
    is_ascii=False,
)
ASCII: Final = Glyphs(
    levels="_.-=+*%#",
    parts="#",
    track=".",
    rule="-",
    ellipsis="~",
    ascending="^",
    descending="v",
    cursor=">",
    micro="u",
    at_most="<=",
    unknown="-",
    playing=">",
    paused="=",
    is_ascii=True,
)


def choose_glyphs(environment: Mapping[str, str], *, ascii_only: bool = False) -> Glyphs:
    """The characters that a terminal can show, by what the environment says of it.

    Where it says nothing of an encoding, as in most containers, the terminal is taken to know UTF-8.
    """
    encoding = next(filter(None, (environment.get(name) for name in ("LC_ALL", "LC_CTYPE", "LANG"))), "UTF-8")
    is_plain = "utf" not in encoding.lower() or environment.get("TERM", "").startswith(WITHOUT_BLOCKS)
    return ASCII if ascii_only or is_plain else BLOCKS


def bar(part: float, width: int, glyphs: Glyphs) -> tuple[str, str]:
    """A horizontal bar, as its full and its empty part.

    Args:
        part: How much of it is full, 0 to 1; anything above 0 shows, and anything below 1 leaves something empty.
        width: Cells of both.
        glyphs: What it is drawn with.
    """
    steps = len(glyphs.parts)
    filled = round(part * width * steps)
    filled = max(filled, 1) if part > 0 else 0
    filled = min(filled, width * steps - (part < 1)) if width > 0 else 0
    whole, rest = divmod(filled, steps)
    full = glyphs.parts[-1] * whole + (glyphs.parts[rest - 1] if rest else "")
    return full, glyphs.track * (width - len(full))


def sparkline(values: Sequence[float | None], width: int, glyphs: Glyphs) -> str:
    """The last values, one a cell, the newest at the right; the highest of them is the highest block but one.

    A full block would touch the line above. Zero is the lowest block, and a value that is not known is a gap.
    """
    (row,) = _draw(values, width, 1, glyphs.levels[:-1])
    return row


def chart(values: Sequence[float | None], width: int, height: int, glyphs: Glyphs) -> list[str]:
    """The last values as a chart of several rows, the top one first; the highest of them is full blocks."""
    return _draw(values, width, height, glyphs.levels)


def _draw(values: Sequence[float | None], width: int, height: int, blocks: str) -> list[str]:
    shown = list(values)[-width:] if width > 0 else []
    highest = max((value for value in shown if value is not None), default=0.0)
    steps = len(blocks)
    # The lowest step stands for zero, so that there is always a ground to see.
    levels = [
        None if value is None else 1 + round(value / highest * (height * steps - 1)) if highest > 0 else 1
        for value in shown
    ]
    rows = []
    for floor in range((height - 1) * steps, -1, -steps):
        cells = [" " if level is None or level <= floor else blocks[min(level - floor, steps) - 1] for level in levels]
        rows.append("".join(cells).rjust(width))
    return rows
