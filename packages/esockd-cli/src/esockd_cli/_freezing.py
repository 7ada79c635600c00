"""Keeps the pauses of the garbage collector short while a listener holds many connections.

A full collection looks at every object there is: 20,000 connections are half a million of them, and tens of
milliseconds in which nobody is served. So what has survived two collections is frozen, and no collection looks at it
any more. It is freed by reference counts as ever. Only cycles among frozen objects stay, and so everything is thawed
for one full collection once there are twice as many objects for each open descriptor as after the last one.

Only the command does this, because the process is its own; a library must not.
"""

from __future__ import annotations

import gc
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

FIXED: Final = 1000  # descriptors that the program itself counts as: it has objects without any connection
GROWTH: Final = 2


def descriptors_in_use() -> int:
    """About how many descriptors are open: the lowest free one, which the kernel gives to the next file."""
    try:
        lowest = os.dup(0)
    except OSError:  # none is free
        return os.sysconf("SC_OPEN_MAX")
    os.close(lowest)
    return lowest


class Freezer:
    """Freezes what lives long after each collection, and thaws it when garbage may be in it.

    Args:
        count_holders: Counts what the objects of the program belong to, such as connections.

    Attributes:
        thawed: How often everything was thawed for a full collection.
    """

    def __init__(self, count_holders: Callable[[], int] = descriptors_in_use) -> None:
        self.thawed = 0
        self._count_holders = count_holders
        self._is_thawed = False
        self._most = 0  # objects that may be frozen
        self._share = 0.0  # objects for each holder, after the last full collection
        self._freeze()
        self._note_full()

    def __call__(self, phase: str, info: Mapping[str, int]) -> None:
        """As one of `gc.callbacks`."""
        if phase != "stop" or not info["generation"]:
            return
        if self._is_thawed:
            if info["generation"] == 2:  # the full one
                self._is_thawed = False
                self._freeze()
                self._note_full()
            return
        self._freeze()
        allowed = GROWTH * self._share * self._holders()
        if self._most > allowed:
            self._most = gc.get_freeze_count()  # without those that are gone; it looks at all, so not each time
            if self._most > allowed:
                gc.unfreeze()
                self._is_thawed = True
                self.thawed += 1

    def _freeze(self) -> None:
        self._most += len(gc.get_objects(generation=2))  # what survived, and nothing that is frozen already
        gc.freeze()

    def _note_full(self) -> None:
        self._most = gc.get_freeze_count()
        self._share = self._most / self._holders()

    def _holders(self) -> int:
        return FIXED + self._count_holders()


def tune_collector() -> None:
    """Keep pauses short in this process from now on."""
    if not any(isinstance(each, Freezer) for each in gc.callbacks):
        gc.callbacks.append(Freezer())


@contextmanager
def tuned_collector() -> Iterator[None]:
    """Keep pauses short inside the block."""
    gc.callbacks.append(freezer := Freezer())
    try:
        yield
    finally:
        gc.callbacks.remove(freezer)
        gc.unfreeze()
