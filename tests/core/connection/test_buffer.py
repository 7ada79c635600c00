"""The buffer of a connection against a slow and obvious model: one byte array."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from esockd_core._connection.buffer import Buffer

if TYPE_CHECKING:
    from collections.abc import Sequence

PIECES = st.text("ab\r\n", min_size=1, max_size=9).map(str.encode)
COUNTS = st.integers(1, 12)
STEPS = st.one_of(
    st.tuples(st.just("keep"), PIECES),
    st.tuples(st.just("take"), COUNTS),
    st.tuples(st.just("cut"), COUNTS),
    st.tuples(st.just("find"), st.sampled_from([b"\n", b"\r\n", b"a\r\nb"])),
    st.tuples(st.just("wait"), st.none()),
)


class Held(Buffer):
    def __init__(self) -> None:
        self._chunk = self._more = None


Held.__abstractmethods__ = frozenset()  # it receives from nobody


@given(steps=st.lists(STEPS, max_size=60))
def test_bytes_come_out_as_they_came_in_however_they_are_taken(steps: Sequence[tuple[str, object]]) -> None:
    held, model = Held(), bytearray()  # type: ignore[abstract]
    for what, argument in steps:
        if what == "keep":
            assert isinstance(argument, bytes)
            held._buffer(argument)
            model += argument
        elif what == "take" and model:
            assert isinstance(argument, int)
            data = held._take_buffered(argument)
            assert type(data) is bytes
            assert 0 < len(data) <= argument
            assert data == model[: len(data)]
            del model[: len(data)]
        elif what == "cut":
            assert isinstance(argument, int)
            count = min(argument, len(model))
            assert held._cut(count, count) == model[:count]
            del model[:count]
        elif what == "find":
            assert isinstance(argument, bytes)
            at = model.find(argument)
            assert held._find(argument, 0) == at
            searched = len(model) if at < 0 else at + len(argument) - 1
            assert held._find(argument, searched) == at
            if at >= 0:
                assert held._cut(at + len(argument), at) == model[:at]
                del model[: at + len(argument)]
        elif what == "wait":
            held._forget_taken()
        assert held._buffered_bytes() == len(model)
    assert held._take_all_buffered() == model


def test_a_connection_that_waits_holds_no_byte_that_was_taken() -> None:
    held = Held()  # type: ignore[abstract]
    held._buffer(b"x" * 100)
    assert held._cut(99, 98) == b"x" * 98
    held._forget_taken()
    assert held._chunk == b"x"
