"""`bind` refuses whatever is not laid out as it expects, and nothing has changed then."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextvars import Context
from pathlib import Path
from typing import Any

import pytest
from tests.patience import PATIENCE_S

import esockd_speedups

ROOT = Path(__file__).resolve().parents[2]
NAMES = [
    "bytes_in",
    "bytes_out",
    "_chunk",
    "_closing",
    "draining",
    "driver",
    "_eof",
    "_eof_sent",
    "_more",
    "_reading_paused",
    "_receiver",
    "_side",
    "_transport",
    "_unyielded",
    "_write_paused",
]


class NoLoop:
    def get_debug(self) -> bool:
        return False


def methods(*_: object) -> None: ...


class Stream:
    __slots__ = NAMES

    _receive = __anext__ = receive = send = send_nowait = data_received = methods


class Side:
    __slots__ = ("loop", "resumes", "spare", "woken")


def future(kind: Any = asyncio.Future) -> Any:
    return kind(loop=NoLoop())


def bind(**changed: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "stream": Stream,
        "side": Side,
        "future": future(),
        "callback": id,
        "context": Context(),
        "scoped_tasks": {},
        "current_task": asyncio.current_task,
        "resume": id,
        "end_of_stream": EOFError,
        "read_bytes": 65_536,
        "yield_every": 32,
        "half_a_turn": 16,
    }
    return esockd_speedups.bind(**given | changed)


@pytest.mark.parametrize("missing", NAMES)
def test_a_stream_without_a_slot_is_refused(missing: str) -> None:
    own = {"__slots__": [name for name in NAMES if name != missing]}
    with pytest.raises(ImportError, match=f"has no slot {missing}"):
        bind(stream=type("Stream", (), own))


@pytest.mark.parametrize("value", [property(id), 1, None], ids=["property", "number", "None"])
def test_something_else_in_the_place_of_a_slot_is_refused(value: object) -> None:
    own = {"__slots__": [name for name in NAMES if name != "_chunk"], "_chunk": value}
    with pytest.raises(ImportError, match="has no slot _chunk"):
        bind(stream=type("Stream", (), own))


def test_the_slot_of_another_class_is_refused() -> None:
    other = type("Other", (), {"__slots__": ["_chunk"]})
    own = {"__slots__": [name for name in NAMES if name != "_chunk"], "_chunk": vars(other)["_chunk"]}
    with pytest.raises(ImportError, match="has no slot _chunk"):
        bind(stream=type("Stream", (), own))


class Silent(asyncio.Future[Any]):
    """Keeps no callback."""

    def add_done_callback(self, *_: object, **__: object) -> None: ...


class Elsewhere:
    """Keeps its callbacks in a dictionary, as a future in Python does."""

    def __init__(self, *, loop: object) -> None:
        self.callbacks: list[object] = []

    def add_done_callback(self, callback: object, *, context: object) -> None:
        self.callbacks.append((callback, context))


class InSlots:
    """Keeps its first callback in two slots at once."""

    __slots__ = ("context", "first", "others", "second")

    def __init__(self, *, loop: object) -> None: ...

    def add_done_callback(self, callback: object, *, context: object) -> None:
        self.first = self.second = callback
        self.context = context


@pytest.mark.parametrize("kind", [Silent, Elsewhere, InSlots, asyncio.futures._PyFuture])  # type: ignore[attr-defined]
def test_futures_that_are_not_those_of_cpython_are_refused(kind: Any) -> None:
    with pytest.raises(ImportError, match="futures are not as those of CPython"):
        bind(future=future(kind))


def test_an_error_of_a_future_is_passed_on() -> None:
    class Broken(asyncio.Future[Any]):
        def add_done_callback(self, *_: object, **__: object) -> None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        bind(future=future(Broken))


@pytest.mark.parametrize("wrong", [{"stream": 1}, {"side": None}, {"scoped_tasks": []}, {"read_bytes": "1"}])
def test_an_argument_of_another_type_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        bind(**wrong)


def test_what_was_refused_is_not_in_use() -> None:
    with pytest.raises(ImportError):
        bind(side=Stream)
    assert not esockd_speedups.in_use()
    assert esockd_speedups.resuming() == 0


IN_A_FRESH_PROCESS = """
import sys
sys.path[:0] = {paths!r}
from tests.speedups.test_bind import Stream, bind
import esockd_speedups
made = bind()
assert esockd_speedups.in_use()
assert sorted(made) == ["__anext__", "_receive", "data_received", "receive", "send", "send_nowait"]
for name, method in made.items():
    setattr(Stream, name, method)
assert Stream().send.__name__ == "methods"
assert Stream().send(b"x", b"y") is None  # the method in Python answers
try:
    bind()
except ImportError as error:
    print(error)
"""


def test_it_is_used_once_in_a_process() -> None:
    program = IN_A_FRESH_PROCESS.format(paths=[str(ROOT), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    assert done.stdout == "the methods are in use already\n"


IN_A_SUBINTERPRETER = """
try:
    import _interpreters as interpreters
    own = interpreters.create("legacy")
except ImportError:
    import _xxsubinterpreters as interpreters
    own = interpreters.create(isolated=False)
code = "import sys; sys.path[:0] = {paths!r}\\ntry:\\n import esockd_speedups"
code += "\\nexcept ImportError as error: print(error, flush=True)"
interpreters.run_string(own, code)
"""


def test_a_subinterpreter_is_refused() -> None:
    program = IN_A_SUBINTERPRETER.format(paths=sys.path)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    assert done.stdout == "esockd_speedups works in the main interpreter only\n"
