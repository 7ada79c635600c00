"""The lines of a control socket: messages come out as they went in, however they are cut, and bounds hold."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esockd_core._remote.wire import (
    MAX_LINE_BYTES,
    MAX_MESSAGE_BYTES,
    BadMessage,
    Inbox,
    TooLong,
    encode,
    encode_event,
    read_id,
)

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False)
)
messages = st.dictionaries(
    st.text(max_size=8).filter(lambda name: name not in ("part", "last_part")),
    st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner), max_leaves=4),
    max_size=4,
)


@given(st.lists(messages, max_size=3), st.data())
def test_messages_come_out_as_they_went_in_however_they_are_cut(
    sent: list[dict[str, Any]], data: st.DataObject
) -> None:
    wire = b"".join(line for message in sent for line in encode(message))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=6)))
    inbox = Inbox()
    received: list[object] = []
    for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
        received += inbox.feed(wire[start:end])
    assert received == sent


@given(st.binary(max_size=200))
def test_any_bytes_are_messages_or_bad_ones(data: bytes) -> None:
    for message in Inbox().feed(data + b"\n"):
        assert isinstance(message, dict | BadMessage)


def test_a_message_longer_than_a_line_travels_in_parts_that_are_lines() -> None:
    message = {"id": 5, "result": {"rules": ['deny "\\10.0.0.0/8'] * 150_000}}
    lines = encode(message)
    assert len(lines) > 2
    assert max(map(len, lines)) <= MAX_LINE_BYTES
    assert {json.loads(line)["id"] for line in lines} == {5}
    [received] = Inbox().feed(b"".join(lines))
    assert received == message


def test_an_event_is_encoded_as_any_message() -> None:
    assert encode_event(7, '{"at":1}') == encode({"id": 7, "event": {"at": 1}})


def test_a_message_beyond_the_bound_is_not_sent() -> None:
    with pytest.raises(TooLong):
        encode({"id": 1, "result": "x" * MAX_MESSAGE_BYTES})


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b"hello", "not JSON"),
        (b"[1]", "JSON object"),
        (b'{"id": NaN}', "NaN"),
        (b"\xff\xfe{}", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"id": ' + b"9" * 5_000 + b"}", "not JSON"),
        (b'{"id": 1, "last_part": "{"}', "not JSON"),
    ],
)
def test_a_line_that_says_nothing_spoils_no_other(line: bytes, complaint: str) -> None:
    bad, good = Inbox().feed(line + b'\n\n  \n{"id":2}\n')
    assert isinstance(bad, BadMessage)
    assert complaint in str(bad)
    assert good == {"id": 2}


def test_a_line_is_bounded_whether_it_ends_or_not() -> None:
    with pytest.raises(TooLong, match="1048576"):
        list(Inbox().feed(b"x" * MAX_LINE_BYTES))
    inbox = Inbox(100)
    assert list(inbox.feed(b"x" * 99)) == []
    with pytest.raises(TooLong, match="100"):
        list(inbox.feed(b"x"))
    with pytest.raises(TooLong, match="100"):
        list(Inbox(100).feed(b"x" * 100 + b"\n"))


def test_parts_are_bounded_together() -> None:
    inbox = Inbox(100)
    part = json.dumps({"part": "x" * 60}).encode() + b"\n"
    assert list(inbox.feed(part)) == []
    with pytest.raises(TooLong, match="a message may have 100 bytes"):
        list(inbox.feed(part))


@pytest.mark.parametrize(
    ("given_id", "read"),
    [(1, 1), ("a", "a"), ("x" * 65, None), (2**63, None), (True, None), (1.5, None), ([], None), (None, None)],
)
def test_an_id_is_a_number_or_a_short_text(given_id: object, read: object) -> None:
    assert read_id({"id": given_id}) == read
