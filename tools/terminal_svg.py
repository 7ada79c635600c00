"""What a terminal shows, as SVG: text as text, and blocks as rectangles, so that no font leaves gaps between them."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from html import escape
from itertools import groupby
from typing import NamedTuple

CELL_WIDTH, CELL_HEIGHT, FONT_SIZE = 8.4, 17, 14
MARGIN, TITLE_HEIGHT = 14, 30
FOREGROUND, BACKGROUND, DIM, FRAME = "#d3d7de", "#14171c", "#7b8494", "#262b33"
# The 16 colours of a terminal, as one of the usual dark themes has them.
COLORS = ("#1b1f27", "#f2616b", "#8ccf7e", "#e5c76b", "#67b0e8", "#c47fd5", "#5fc4c9", "#d3d7de")
LEVELS, PARTS = "▁▂▃▄▅▆▇█", "▏▎▍▌▋▊▉█"
SGR = re.compile(r"\x1b\[([\d;]*)m|\x1b[()].|[\x0e\x0f]")


@dataclass(frozen=True)
class Look:
    """How a cell is written."""

    color: str = FOREGROUND
    is_bold: bool = False
    is_reverse: bool = False
    is_dim: bool = False

    def after(self, codes: str) -> Look:
        """This look after a Select Graphic Rendition sequence (ECMA-48)."""
        look = self
        for code in map(int, codes.split(";") if codes else ["0"]):
            if code == 0:
                look = Look()
            elif code in (1, 2, 7):
                look = replace(
                    look,
                    is_bold=look.is_bold or code == 1,
                    is_dim=look.is_dim or code == 2,
                    is_reverse=look.is_reverse or code == 7,
                )
            elif 30 <= code <= 39:
                look = replace(look, color=FOREGROUND if code == 39 else COLORS[code - 30])
        return look

    @property
    def ink(self) -> str:
        """The colour of its letters."""
        return BACKGROUND if self.is_reverse else DIM if self.is_dim else self.color


class Cell(NamedTuple):
    """A character and its look."""

    text: str
    look: Look


def read_row(row: str, look: Look) -> tuple[list[Cell], Look]:
    """Read a row with its escape sequences; the look goes on into the next."""
    cells: list[Cell] = []
    position = 0
    for found in SGR.finditer(row):
        cells += [Cell(character, look) for character in row[position : found.start()]]
        look = look.after(found[1]) if found[1] is not None else look
        position = found.end()
    cells += [Cell(character, look) for character in row[position:]]
    return cells, look


def to_svg(captured: str, columns: int, title: str) -> str:
    """Draw what `tmux capture-pane -e -p` gave.

    Args:
        captured: Rows of text with escape sequences.
        columns: The width of the terminal.
        title: What stands above it.
    """
    rows = captured.splitlines()
    width = columns * CELL_WIDTH + 2 * MARGIN
    height = len(rows) * CELL_HEIGHT + 2 * MARGIN + TITLE_HEIGHT
    font = f"{FONT_SIZE}px ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace"
    lights = (COLORS[1], COLORS[3], COLORS[2])
    size = f'viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(title)}">',
        f"<style>text {{ font: {font}; white-space: pre }}</style>",
        f'<rect width="100%" height="100%" rx="9" fill="{FRAME}"/>',
        f'<rect y="{TITLE_HEIGHT}" width="100%" height="{height - TITLE_HEIGHT - 9:g}" fill="{BACKGROUND}"/>',
        f'<rect y="{height - 24:g}" width="100%" height="24" rx="9" fill="{BACKGROUND}"/>',
        *(f'<circle cx="{20 + 20 * index}" cy="15" r="6" fill="{color}"/>' for index, color in enumerate(lights)),
        f'<text x="{width / 2:g}" y="20" text-anchor="middle" fill="{DIM}">{escape(title)}</text>',
    ]
    look = Look()
    for index, row in enumerate(rows):
        cells, look = read_row(row, look)
        out += _row(cells, MARGIN + TITLE_HEIGHT + index * CELL_HEIGHT)
    return "\n".join([*out, "</svg>", ""])


def _row(cells: list[Cell], y: float) -> list[str]:
    out: list[str] = []
    x = 0
    for (look, is_block), group in groupby(cells, key=lambda cell: (cell.look, cell.text in LEVELS + PARTS)):
        text = "".join(cell.text for cell in group)
        left = MARGIN + x * CELL_WIDTH
        if look.is_reverse:
            out.append(_rect(left, y, len(text) * CELL_WIDTH, CELL_HEIGHT, look.color))
        if is_block:
            out += _blocks(text, left, y, look.ink)
        else:
            # Apart where there are gaps: not every program keeps spaces.
            for word in re.finditer(r"\S+(?: \S+)*", text):
                out.append(_text(word[0], left + word.start() * CELL_WIDTH, y, look))
        x += len(text)
    return out


def _text(text: str, x: float, y: float, look: Look) -> str:
    bold = ' font-weight="bold"' if look.is_bold else ""
    size = f'x="{x:.1f}" y="{y + 13:g}" textLength="{len(text) * CELL_WIDTH:.1f}"'
    return f'<text {size} fill="{look.ink}"{bold}>{escape(text)}</text>'


def _blocks(text: str, left: float, y: float, color: str) -> list[str]:
    out = []
    x = left
    for character, group in groupby(text):
        width = len(list(group)) * CELL_WIDTH
        if character in LEVELS:
            height = (LEVELS.index(character) + 1) / 8 * CELL_HEIGHT
            out.append(_rect(x, y + CELL_HEIGHT - height, width, height, color))
        else:
            out.append(_rect(x, y, (PARTS.index(character) + 1) / 8 * CELL_WIDTH, CELL_HEIGHT, color))
        x += width
    return out


def _rect(x: float, y: float, width: float, height: float, color: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width + 0.3:.1f}" height="{height + 0.3:.1f}" fill="{color}"/>'
