"""Text in cells: nothing that a peer or a name says can do more than be read."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esockd_cli.top.text import (
    PAD,
    clip,
    clip_middle,
    format_age,
    format_bytes,
    format_count,
    format_duration,
    format_rate,
    format_short,
    to_cells,
)


@pytest.mark.parametrize(
    ("text", "cells"),
    [
        ("mqtt", "mqtt"),
        ("[bold red]x[/]", "[bold red]x[/]"),
        ("[fe80::1%eth0]:5000 :ab:", "[fe80::1%eth0]:5000 :ab:"),
        ("\x1b[2J\x1b]0;owned\x07", "?[2J?]0;owned?"),
        ("a\r\nb\tc", "a??b?c"),
        ("cafe\u0301", "caf\u00e9"),
        ("x\u0301\u0302", "x??"),
        ("\u202eevil", "?evil"),
        ("zero\u200bwidth\ufeff", "zero?width?"),
        ("\u8fb9\u7f18", f"\u8fb9{PAD}\u7f18{PAD}"),
        ("\U0001f600", f"\U0001f600{PAD}"),
        ("\udcff\ue000", "??"),
        ("a\u2028b\u3000c", "a b c"),
        ("\u1161", "?"),
    ],
)
def test_only_what_can_be_read_is_shown(text: str, cells: str) -> None:
    assert to_cells(text) == cells


@given(st.text(st.characters()))
def test_no_text_holds_a_control_character_or_one_without_a_cell(text: str) -> None:
    cells = to_cells(text)
    assert not {unicodedata.category(cell)[0] for cell in cells if cell != PAD} & {"C", "M"}
    assert to_cells(cells.replace(PAD, "")) == cells


@given(st.text(st.sampled_from("ab\u8fb9")), st.integers(0, 12))
def test_clipped_text_has_the_width_and_no_half_characters(text: str, width: int) -> None:
    cells = to_cells(text)
    for clipped in (clip(cells, width), clip_middle(cells, width)):
        assert len(clipped) == min(len(cells), width)
        assert to_cells(clipped.replace(PAD, "")) == clipped


def test_an_address_is_cut_in_the_middle_since_both_ends_say_something() -> None:
    assert clip_middle("[2001:db8:85a3::8a2e:370:7334]:6379", 15) == "[2001:d\u20264]:6379"
    assert clip("a very long name", 10) == "a very lo\u2026"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (999, "999"), (12_345, "12,345"), (999_999, "999,999"), (1_234_567, "1.2M"), (98_765_432_100, "99G")],
)
def test_counts_stay_short(count: int, text: str) -> None:
    assert format_count(count) == text


@pytest.mark.parametrize(
    ("rate", "text"),
    [(0, "0"), (0.01, "0"), (0.4, "0.4"), (9.96, "10"), (4_500.4, "4,500"), (120_000, "120k"), (3.1e24, "3100000E")],
)
def test_rates_stay_short(rate: float, text: str) -> None:
    assert format_rate(rate) == text


@pytest.mark.parametrize(("count", "text"), [(999, "999"), (1_000, "1.0k"), (10_240, "10k"), (999_600, "1.0M")])
def test_counts_can_be_shorter_still(count: int, text: str) -> None:
    assert format_short(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.000_999_9, "1 ms"), (0.0001, "100 \u00b5s"), (0.0025, "2.5 ms"), (0.25, "250 ms"), (1, "1 s"), (10, "10 s")],
)
def test_durations_have_the_unit_that_suits_them(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(-1, "0s"), (5, "5s"), (725, "12m 05s"), (15_120, "4h 12m"), (274_320, "3d 04h")]
)
def test_ages_have_two_units(seconds: float, text: str) -> None:
    assert format_age(seconds) == text


def test_bytes_a_second_are_rounded() -> None:
    assert format_bytes(1_535.6) == "1.5 KiB"
