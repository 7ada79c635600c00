"""Tables as plain text: nothing is cut off, and what is shown cannot steer the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from esockd_cli.top.text import PAD, to_cells

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

GAP = "  "


def clean(text: str) -> str:
    """Make a text safe to show."""
    return to_cells(text).replace(PAD, "")


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Lines of a table, the head first; numbers stand at the right of their column."""
    body = [list(row) for row in rows]
    cells = [list(head), *([to_cells(str(value)) for value in row] for row in body)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    numbers = [all(isinstance(row[index], int) for row in body) and bool(body) for index in range(len(head))]
    return [_line(row, widths, numbers) for row in cells]


def _line(row: Sequence[str], widths: Sequence[int], numbers: Sequence[bool]) -> str:
    padded = [
        cell.rjust(width) if is_number else cell.ljust(width)
        for cell, width, is_number in zip(row, widths, numbers, strict=True)
    ]
    return GAP.join(padded).rstrip().replace(PAD, "")
