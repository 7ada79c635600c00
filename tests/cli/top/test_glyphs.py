"""Bars and charts."""

from __future__ import annotations

import pytest

from esockd_cli.top.glyphs import ASCII, BLOCKS, Glyphs, bar, chart, choose_glyphs, sparkline


@pytest.mark.parametrize(
    ("part", "drawn"),
    [(0.0, "....."), (0.001, "\u2578...."), (0.5, "==\u2578.."), (0.99, "====\u2578"), (1.0, "=====")],
)
def test_a_bar_is_full_when_all_is_and_empty_when_nothing_is(part: float, drawn: str) -> None:
    assert "".join(bar(part, 5, BLOCKS)) == drawn.replace(".", "\u2500").replace("=", "\u2501")


def test_a_sparkline_is_relative_to_its_highest_with_the_newest_at_the_right() -> None:
    assert sparkline([0, 1, 4, 8], 4, BLOCKS) == "\u2581\u2582\u2584\u2587"
    assert sparkline([100, 0, 1, 4, 8], 4, BLOCKS) == "\u2581\u2582\u2584\u2587"
    assert sparkline([8], 4, BLOCKS) == "   \u2587"


def test_zero_is_ground_and_the_unknown_is_a_gap() -> None:
    assert sparkline([0, None, 0], 4, BLOCKS) == " \u2581 \u2581"
    assert sparkline([], 4, BLOCKS) == "    "


def test_a_chart_has_rows_of_blocks() -> None:
    assert chart([0, 1, 2, 3], 4, 2, BLOCKS) == ["  \u2583\u2588", "\u2581\u2586\u2588\u2588"]


@pytest.mark.parametrize("glyphs", [ASCII, BLOCKS], ids=["ascii", "blocks"])
def test_every_picture_has_the_width_asked_for(glyphs: Glyphs) -> None:
    for width in range(6):
        assert len("".join(bar(0.7, width, glyphs))) == width
        assert {len(row) for row in chart([1, None, 3, 2, 0, 5, 9], width, 3, glyphs)} == {width}


def test_ascii_is_ascii() -> None:
    assert "".join(chart([1, 2, 3], 3, 2, ASCII)).isascii()
    assert "".join(bar(0.5, 9, ASCII)).isascii()


@pytest.mark.parametrize(
    ("environment", "glyphs"),
    [
        ({"TERM": "xterm-256color", "LANG": "en_US.UTF-8"}, BLOCKS),
        ({"TERM": "xterm"}, BLOCKS),
        ({"TERM": "xterm", "LANG": "C.UTF-8", "LC_ALL": "C"}, ASCII),
        ({"TERM": "xterm", "LANG": "de_DE.ISO-8859-1"}, ASCII),
        ({"TERM": "linux", "LANG": "C.UTF-8"}, ASCII),
        ({"TERM": "vt220", "LANG": "C.UTF-8"}, ASCII),
    ],
)
def test_blocks_are_for_terminals_that_know_them(environment: dict[str, str], glyphs: Glyphs) -> None:
    assert choose_glyphs(environment) is glyphs


def test_ascii_can_be_asked_for() -> None:
    assert choose_glyphs({"TERM": "xterm"}, ascii_only=True) is ASCII
