"""How long this process has stood still in Python's garbage collector."""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING, Any, Literal, Self

from esockd_core import ProgramMethod

if TYPE_CHECKING:
    from collections.abc import Mapping


class Collector:
    """Counts collections and their time while it is entered, which costs a microsecond for each collection."""

    def __init__(self) -> None:
        self._entered = self._begun = time.perf_counter()
        self._collections = 0
        self._seconds = 0.0
        self._longest = 0.0

    def __enter__(self) -> Self:
        gc.callbacks.append(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        gc.callbacks.remove(self._note)

    def _note(self, phase: Literal["start", "stop"], info: Mapping[str, int]) -> None:
        del info
        now = time.perf_counter()
        if phase == "start":
            self._begun = now
            return
        self._collections += 1
        self._seconds += now - self._begun
        self._longest = max(self._longest, now - self._begun)

    def as_dict(self) -> dict[str, Any]:
        """Collections, seconds spent in all of them and in the longest, and seconds since it was entered."""
        return {
            "collections": self._collections,
            "seconds": self._seconds,
            "longest": self._longest,
            "elapsed": time.perf_counter() - self._entered,
        }

    def methods(self) -> dict[str, ProgramMethod]:
        """What may be asked over the control socket."""
        return {"get_collector": ProgramMethod(self._answer, is_change=False)}

    async def _answer(self, given: Mapping[str, Any]) -> Any:
        del given
        return self.as_dict()
