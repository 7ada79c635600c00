"""Tables that leave out columns, by rank, where the screen is narrow, and stretch the others where it is wide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from esockd_cli.top.canvas import Style

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from esockd_cli.top.canvas import Align, Area, Spans
    from esockd_cli.top.glyphs import Glyphs

RowT = TypeVar("RowT")
MARGIN = 2  # before the first column, for the cursor
WIDE_GAP = 2  # between columns where there is room for it, and then the last column keeps off the edge


class Sort(NamedTuple):
    """By which column rows are sorted; in the order they came where it is None."""

    title: str | None = None
    is_descending: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Column(Generic[RowT]):
    """One column.

    Attributes:
        title: What stands above it.
        short: The same where the title has no room; "" for none.
        cell: Writes a row's cell for a width.
        width: Its width.
        least: Its width where no column can be left out any more; None for the same.
        most: Its width where there is room to spare; None for the same.
        turn: Columns grow to their greatest width one after the other, those of turn 1 first; those of turn 0, such
            as bars and sparklines, share the rest.
        rank: Columns of the highest rank are left out first; those of rank 0 never.
        align: Where a cell that is shorter stands.
        key: What rows are sorted by; None where that makes no sense.
    """

    title: str
    cell: Callable[[RowT, int], Spans]
    width: int
    least: int | None = None
    short: str = ""
    most: int | None = None
    turn: int = 0
    rank: int = 0
    align: Align = "right"
    key: Callable[[RowT], Any] | None = None


def sort_rows(rows: Sequence[RowT], columns: Sequence[Column[RowT]], sort: Sort) -> list[RowT]:
    """Rows in the order of a column; equal ones stay in the order they came."""
    key = next((column.key for column in columns if column.title == sort.title), None)
    return list(rows) if key is None else sorted(rows, key=key, reverse=sort.is_descending)


def next_sort(columns: Sequence[Column[Any]], sort: Sort) -> Sort:
    """The sort after this one: each column that can be sorted by, numbers with the highest first, then none."""
    choices = [Sort(), *(Sort(column.title, column.align == "right") for column in columns if column.key)]
    titles = [choice.title for choice in choices]
    return choices[(titles.index(sort.title) + 1) % len(choices)] if sort.title in titles else Sort()


def fit_columns(columns: Sequence[Column[RowT]], width: int, gap: int) -> list[tuple[Column[RowT], int]]:
    """Choose the columns that fit, and their widths."""
    kept = list(columns)
    while sum(column.width + gap for column in kept) - gap > width and (rank := max(each.rank for each in kept)):
        kept = [column for column in kept if column.rank < rank]
    widths = [column.width for column in kept]
    left = width - sum(widths) - gap * (len(kept) - 1)
    for index, column in enumerate(kept):
        if left < 0 and column.least is not None:
            less = min(-left, column.width - column.least)
            widths[index], left = widths[index] - less, left + less
    for index in sorted(range(len(kept)), key=lambda index: kept[index].turn):
        if left > 0 and kept[index].turn and (most := kept[index].most):
            more = min(left, most - widths[index])
            widths[index], left = widths[index] + more, left - more
    growing = [index for index, column in enumerate(kept) if column.most and not column.turn]
    while left > 0 and (growing := [index for index in growing if widths[index] < (kept[index].most or 0)]):
        for index in growing[:left]:
            widths[index] += 1
        left -= min(left, len(growing))
    return list(zip(kept, widths, strict=True))


def draw_table(
    area: Area,
    columns: Sequence[Column[RowT]],
    rows: Sequence[RowT],
    *,
    cursor: int | None,
    sort: Sort,
    glyphs: Glyphs,
) -> None:
    """Draw a head and as many rows as there is room for, those around the cursor.

    Args:
        area: Where to.
        columns: What there is to see of a row.
        rows: In their order.
        cursor: Which row is marked; None for none.
        sort: What the head marks.
        glyphs: The characters to use.
    """
    gap = WIDE_GAP if area.width >= 60 else 1
    first = first_visible(len(rows), area.height - 1, cursor)
    shown = rows[first : first + max(0, area.height - 1)]
    if cursor is not None:
        area.put(0, cursor - first + 1, glyphs.cursor, Style.HEAD)
    x = MARGIN
    for column, width in fit_columns(columns, area.width - MARGIN - (gap == WIDE_GAP), gap):
        if x + width > area.width:
            break
        arrow = "" if column.title != sort.title else glyphs.descending if sort.is_descending else glyphs.ascending
        # The arrow of the sort stands in the gap beside the title; nothing else leaves its column.
        head = area.part(x if column.align == "left" else x - 1, width=width + 1)
        _put_cell(head, column, [(_title(column, width, arrow), Style.HEAD)])
        for y, row in enumerate(shown, start=1):
            _put_cell(area.part(x, y, width, 1), column, column.cell(row, width))
        x += width + gap


def first_visible(count: int, room: int, cursor: int | None) -> int:
    """The first of many rows to show in so many lines, so that the one with the cursor stands in the middle."""
    return max(0, min((cursor or 0) - room // 2, count - room))


def _put_cell(area: Area, column: Column[Any], spans: Spans) -> None:
    if column.align == "left":
        area.put_spans(0, 0, spans)
    else:
        area.put_right(area.width, 0, spans)


def _title(column: Column[Any], width: int, arrow: str) -> str:
    """A column's title, with an arrow on its free side where it is sorted by."""
    title = (column.short if column.short and len(column.title) > width else column.title)[:width]
    return f"{title}{arrow}" if column.align == "left" else f"{arrow}{title}"
