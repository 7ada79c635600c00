"""Keys as terminals send them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esockd_cli.top.keys import KeyDecoder


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (b"q", ["q"]),
        (b"\t\r \x7f\x08", ["tab", "enter", "space", "backspace", "backspace"]),
        (b"\x1b[A\x1bOA\x1b[B", ["up", "up", "down"]),
        (b"\x1b[5~\x1b[6~\x1b[H\x1b[4~\x1b[Z", ["pgup", "pgdn", "home", "end", "backtab"]),
        (b"\x0c\x15", ["redraw", "erase"]),
        ("é边".encode(), ["é", "边"]),
        (b"\x1b[1;5Cx", ["x"]),
        (b"\x1b[200~y", ["y"]),
        (b"\x1bfz", ["z"]),
        (b"\x00\x01\x03z", ["z"]),
        (b"\xff\xfez", ["z"]),
        (b"\x1b\x1b[A", ["esc", "up"]),
    ],
)
def test_bytes_become_keys_and_what_is_unknown_is_dropped(data: bytes, keys: list[str]) -> None:
    decoder = KeyDecoder()
    assert decoder.feed(data) == keys
    assert not decoder.is_waiting


def test_an_escape_that_nothing_follows_is_the_key() -> None:
    decoder = KeyDecoder()
    assert decoder.feed(b"\x1b") == []
    assert decoder.is_waiting
    assert decoder.flush() == ["esc"]
    assert not decoder.is_waiting


def test_a_sequence_that_breaks_off_is_nothing() -> None:
    decoder = KeyDecoder()
    assert decoder.feed(b"\x1b[1;") == []
    assert decoder.flush() == []
    assert decoder.feed(b"q") == ["q"]


@given(st.lists(st.sampled_from([b"\x1b[A", b"\x1bOB", b"q", "é".encode(), b"\x1b[5~", b"\t"])), st.data())
def test_it_does_not_matter_how_the_bytes_are_cut(parts: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(parts)
    cut = data.draw(st.integers(0, len(whole)))
    decoder = KeyDecoder()
    assert decoder.feed(whole[:cut]) + decoder.feed(whole[cut:]) == KeyDecoder().feed(whole)


@given(st.binary())
def test_no_bytes_break_it(data: bytes) -> None:
    decoder = KeyDecoder()
    decoder.feed(data)
    decoder.flush()
    decoder.flush()
    decoder.feed(b"\x1b[A")
