"""Which columns a width has room for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esockd_cli.top.canvas import Canvas, Style
from esockd_cli.top.glyphs import BLOCKS
from esockd_cli.top.table import Column, Sort, draw_table, first_visible, fit_columns, next_sort, sort_rows


def column(title: str, **changes: Any) -> Column[Any]:
    return Column(**{"title": title, "cell": lambda row, _: [(str(row), Style.PLAIN)], "width": 5, **changes})


NAME = column("NAME", width=6, least=4, most=10, turn=1, align="left", key=str)
RATE = column("RATE", key=len)
BYTES = column("BYTES", rank=8)
SPARK = column("", width=4, most=9, rank=9)


@pytest.mark.parametrize(
    ("width", "fitted"),
    [
        (40, [("NAME", 10), ("RATE", 5), ("BYTES", 5), ("", 9)]),
        (30, [("NAME", 10), ("RATE", 5), ("BYTES", 5), ("", 4)]),
        (26, [("NAME", 6), ("RATE", 5), ("BYTES", 5), ("", 4)]),
        (25, [("NAME", 10), ("RATE", 5), ("BYTES", 5)][:3]),
        (19, [("NAME", 10), ("RATE", 5)]),
        (13, [("NAME", 6), ("RATE", 5)]),
        (11, [("NAME", 4), ("RATE", 5)]),
        (3, [("NAME", 4), ("RATE", 5)]),
    ],
)
def test_columns_of_the_highest_rank_go_first_and_what_is_left_over_is_shared(
    width: int, fitted: list[tuple[str, int]]
) -> None:
    shown = fit_columns([NAME, RATE, BYTES, SPARK], width, 2)
    assert [title for title, _ in fitted] == [each.title for each, _ in shown]
    assert fitted == [(each.title, width) for each, width in shown]


@given(st.integers(11, 200))
def test_what_fits_is_never_wider_than_the_screen(width: int) -> None:
    shown = fit_columns([NAME, RATE, BYTES, SPARK], width, 2)
    assert sum(each for _, each in shown) + 2 * (len(shown) - 1) <= width


def test_rows_are_sorted_by_a_column_and_equal_ones_stay_in_their_order() -> None:
    rows = ["bb", "a", "cc", "d"]
    assert sort_rows(rows, [NAME, RATE], Sort()) == rows
    assert sort_rows(rows, [NAME, RATE], Sort("NAME", is_descending=True)) == ["d", "cc", "bb", "a"]
    assert sort_rows(rows, [NAME, RATE], Sort("RATE", is_descending=True)) == ["bb", "cc", "a", "d"]
    assert sort_rows(rows, [NAME, RATE], Sort("GONE")) == rows


def test_sorting_goes_round_all_columns_with_the_highest_number_first() -> None:
    columns = [NAME, RATE, BYTES]
    first = next_sort(columns, Sort())
    assert first == Sort("NAME", is_descending=False)
    assert next_sort(columns, first) == Sort("RATE", is_descending=True)
    assert next_sort(columns, Sort("RATE")) == Sort()
    assert next_sort(columns, Sort("GONE")) == Sort()


@pytest.mark.parametrize(
    ("count", "room", "cursor", "first"),
    [(5, 10, 4, 0), (20, 10, 0, 0), (20, 10, 12, 7), (20, 10, 19, 10), (3, 0, 1, 3)],
)
def test_the_cursor_stays_in_sight(count: int, room: int, cursor: int, first: int) -> None:
    assert first_visible(count, room, cursor) == first or room == 0


def test_the_head_marks_the_sort_and_a_mark_the_cursor() -> None:
    canvas = Canvas(20, 3)
    draw_table(
        canvas.area, [NAME, RATE], ["one", "two", "three"],
        cursor=2, sort=Sort("RATE", is_descending=True), glyphs=BLOCKS,
    )  # fmt: skip
    assert [row.text for row in canvas.rows()] == [
        "  NAME       \u25bcRATE  ",
        "  two          two  ",
        "\u25b8 three      three  ",
    ]
