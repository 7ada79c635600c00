"""A screen as cells with styles, and what a terminal has to be told to turn one into the next."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

from esockd_cli.top.text import PAD, clip, to_cells

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Align: TypeAlias = Literal["left", "right"]
MOVE_COST: Final = 6  # unchanged cells between two changes that cost less to write again than to jump over


class Style(StrEnum):
    """How a cell looks; each value is one character, so that a row's styles are a string."""

    PLAIN = "."
    DIM = "d"
    BOLD = "b"
    HEAD = "h"
    MARK = "m"
    GOOD = "g"
    WARN = "w"
    BAD = "x"
    IN = "i"
    OUT = "o"


Span: TypeAlias = tuple[str, Style]
Spans: TypeAlias = "Sequence[Span]"

# ECMA-48 SGR. The 16 colours are the terminal's own, so that they suit its background.
COLORS: Final = {
    Style.PLAIN: "0",
    Style.DIM: "0;2",
    Style.BOLD: "0;1",
    Style.HEAD: "0;1;36",
    Style.MARK: "0;7",
    Style.GOOD: "0;32",
    Style.WARN: "0;1;33",
    Style.BAD: "0;1;31",
    Style.IN: "0;36",
    Style.OUT: "0;35",
}
MONOCHROME: Final = {
    **dict.fromkeys(Style, "0"),
    Style.DIM: "0;2",
    Style.BOLD: "0;1",
    Style.HEAD: "0;1",
    Style.MARK: "0;7",
    Style.WARN: "0;1",
    Style.BAD: "0;1",
}


def choose_sgr(environment: Mapping[str, str], *, no_color: bool = False) -> dict[Style, str]:
    """The styles of a terminal, by what the environment says of it (no-color.org)."""
    is_monochrome = no_color or environment.get("NO_COLOR") or environment.get("TERM", "").startswith("vt")
    return MONOCHROME if is_monochrome else COLORS


class Row(NamedTuple):
    """One finished row: a character and a style for each cell."""

    text: str
    styles: str


class Canvas:
    """A screen of cells; it is written on through areas."""

    __slots__ = ("_styles", "_text", "height", "width")

    def __init__(self, width: int, height: int) -> None:
        self.width: int = width
        self.height: int = height
        self._text = [[" "] * width for _ in range(height)]
        self._styles: list[list[str]] = [[Style.PLAIN] * width for _ in range(height)]

    @property
    def area(self) -> Area:
        """All of it."""
        return Area(self, 0, 0, self.width, self.height)

    def write(self, x: int, y: int, cells: str, style: Style) -> None:
        """Write cells that lie within the canvas."""
        row, end = self._text[y], x + len(cells)
        # Half of a wide character is none.
        if cells and row[x] == PAD:
            row[x - 1] = " "
        if cells and end < self.width and row[end] == PAD:
            row[end] = " "
        row[x:end] = cells
        self._styles[y][x:end] = [style] * len(cells)

    def rows(self) -> list[Row]:
        """What is on it."""
        return [Row("".join(text), "".join(styles)) for text, styles in zip(self._text, self._styles, strict=True)]


@dataclass(frozen=True, slots=True)
class Area:
    """A rectangle of a canvas to write on, with its own coordinates; what does not fit is cut off.

    Attributes:
        canvas: Whose.
        left: The canvas's column that is column 0 here.
        top: The canvas's line that is line 0 here.
        width: Columns.
        height: Lines.
    """

    canvas: Canvas
    left: int
    top: int
    width: int
    height: int

    def part(self, x: int = 0, y: int = 0, width: int | None = None, height: int | None = None) -> Area:
        """A rectangle within this one; without width or height, up to the edge."""
        x, y = max(0, min(x, self.width)), max(0, min(y, self.height))
        right = self.width if width is None else min(self.width, x + max(0, width))
        bottom = self.height if height is None else min(self.height, y + max(0, height))
        return Area(self.canvas, self.left + x, self.top + y, right - x, bottom - y)

    def put(self, x: int, y: int, text: str, style: Style = Style.PLAIN) -> int:
        """Write text, and give the column behind it."""
        if not (0 <= y < self.height and 0 <= x < self.width):
            return x
        cells = clip(to_cells(text), self.width - x, "")
        self.canvas.write(self.left + x, self.top + y, cells, style)
        return x + len(cells)

    def put_spans(self, x: int, y: int, spans: Spans) -> int:
        """Write spans one after the other, and give the column behind them."""
        for text, style in spans:
            x = self.put(x, y, text, style)
        return x

    def put_right(self, right: int, y: int, spans: Spans) -> int:
        """Write spans so that they end before a column, and give the column they begin at."""
        x = max(0, right - width_of(spans))
        self.put_spans(x, y, spans)
        return x


def width_of(spans: Spans) -> int:
    """How many cells spans take."""
    return sum(len(to_cells(text)) for text, _ in spans)


def changes(old: Sequence[Row] | None, new: Sequence[Row], sgr: dict[Style, str], *, ascii_only: bool = False) -> str:
    """What to write to a terminal that shows `old` so that it shows `new`.

    Args:
        old: Rows as many and as wide as the new ones; None when nothing is known of what it shows.
        new: Rows.
        sgr: The terminal's styles.
        ascii_only: Write a question mark for anything else.

    Returns:
        Nothing where nothing has changed.
    """
    out = ["" if old is not None else "\x1b[0m\x1b[2J"]
    style = None
    for y, row in enumerate(new):
        for start, end in _changed_runs(Row("", "") if old is None else old[y], row):
            out.append(f"\x1b[{y + 1};{start + 1}H")
            x = start
            while x < end:
                if row.styles[x] != style:
                    style = row.styles[x]
                    out.append(f"\x1b[{sgr[Style(style)]}m")
                same = x + 1
                while same < end and row.styles[same] == style:
                    same += 1
                out.append(_printable(row.text[x:same], ascii_only=ascii_only))
                x = same
    return "".join(out)


def _changed_runs(old: Row, new: Row) -> Iterable[tuple[int, int]]:
    """Begins and ends of what differs, never within a wide character."""
    if old == new:
        return
    if not old.text:
        yield 0, len(new.text)
        return
    start = end = 0
    for x, (was, becomes, had, gets) in enumerate(zip(old.text, new.text, old.styles, new.styles, strict=True)):
        if (was == becomes and had == gets) or x < end:
            continue
        if end and x - end > MOVE_COST:
            yield start, end
            end = 0
        start = start if end else x
        end = x + 2 if new.text[x + 1 : x + 2] == PAD else x + 1
    if end:
        yield start, end


def _printable(cells: str, *, ascii_only: bool) -> str:
    if ascii_only and not cells.isascii():
        cells = cells.replace(PAD, "?").encode("ascii", "replace").decode()
    return cells.replace(PAD, "")
