"""The limits of single sources over all workers: how many connections each has open, and its bucket.

A source has its place in one of many sets, chosen by a keyed hash. A set has room for 64 sources. One is forgotten when
another needs its place and it has no open connection and a full bucket, so that it would be as good as new.
"""

from __future__ import annotations

import time
from hashlib import blake2b
from typing import TYPE_CHECKING

from esockd_core._admission.units import converted
from esockd_core.workers._buckets import SharedUnits
from esockd_core.workers._memory import CELL, KEY, SETS, SLOTS, SOURCES, WAYS, Cell, Layout

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

    from esockd_core._admission.units import Units
    from esockd_core.workers._memory import ListenerMemory

EMPTY = bytes(KEY)


class SharedSources:
    """The sources of one listener. Its caller holds the lock of the listener, except to ask.

    Args:
        memory: The listener's memory.
        slot: The slot of this process; None for the parent.
        clock: Gives nanoseconds, the same in every process.
    """

    def __init__(self, memory: ListenerMemory, slot: int | None, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._memory = memory
        self._slot = slot
        self._clock = clock
        self._secret = memory.whole.secret
        self._units = SharedUnits(memory, Layout.source_units)
        self._is_used = memory.words(Layout.has_sources, 1)
        self._places = memory.bytes[Layout.source_places : Layout.source_places + SLOTS * SOURCES * 4].cast("I")

    def close(self) -> None:
        """Let go of the memory."""
        self._units.close()
        self._is_used.release()
        self._places.release()

    # Room

    def get(self, source: Hashable, default: int = 0, /) -> int:
        """The connections that a source has open, in all workers."""
        entry = self._find(self._key(source))
        return default if entry is None else self._open(entry)

    def take(self, source: Hashable) -> bool:
        """Count a connection of a source for this process; return False if no more sources can be counted."""
        entry = self._entry(self._key(source))
        if entry is None:
            return False
        self._is_used[0] = 1
        self._places[(self._slot or 0) * SOURCES + entry] += 1
        return True

    def release(self, source: Hashable) -> None:
        """Count a connection of a source no more."""
        entry = self._find(self._key(source))
        mine = None if entry is None else (self._slot or 0) * SOURCES + entry
        if mine is not None and self._places[mine]:  # or it could not be counted
            self._places[mine] -= 1

    def forget(self, slot: int) -> None:
        """Release all that a process held; for the parent."""
        if not self._is_used[0]:
            return  # and pages that were never written stay free
        self._places[slot * SOURCES : (slot + 1) * SOURCES] = memoryview(bytes(SOURCES * 4)).cast("I")

    # Rate

    def try_acquire(self, source: Hashable) -> bool:
        """Take a token of a source if it has one."""
        units, key = self._units.get(), self._key(source)
        now = self._clock() * units.per_ns
        entry = self._entry(key)
        if entry is None:
            return False
        cell = self._cell(entry)
        full_at = max(cell.get(), now) + units.token
        if full_at - now > units.capacity:
            return False
        cell.set(full_at)
        return True

    def wait_time(self, source: Hashable) -> float:
        """Seconds until a source has a token."""
        units = self._units.get()
        now = self._clock() * units.per_ns
        entry = self._find(self._key(source))
        full_at = now if entry is None else max(self._cell(entry).get(), now)
        return units.seconds(full_at + units.token - units.capacity - now)

    def configure(self, units: Units | None) -> None:
        """Put a rate in force, or None; for the parent. Each source keeps its tokens, up to the new burst."""
        old, now_ns = self._units.get(), self._clock()
        for entry in self._known() if self._units.is_set else ():
            cell = self._cell(entry)
            cell.set(now_ns * old.per_ns if units is None else converted(cell.get(), old, units, now_ns))
        if units is not None:
            self._units.set(units)

    def _known(self) -> Iterator[int]:
        base = self._memory.start + Layout.keys
        mapped = self._memory.map
        for number in range(SETS):
            begin = base + number * WAYS * KEY
            if mapped[begin : begin + WAYS * KEY].count(0) < WAYS * KEY:
                for way in range(WAYS):
                    if mapped[begin + way * KEY : begin + (way + 1) * KEY] != EMPTY:
                        yield number * WAYS + way

    # Entries

    def _key(self, source: Hashable) -> bytes:
        raw = source if isinstance(source, bytes) else str(source).encode(errors="surrogateescape")
        return blake2b(raw, digest_size=KEY, key=self._secret).digest()

    def _open(self, entry: int) -> int:
        return sum(self._places[slot * SOURCES + entry] for slot in range(self._memory.whole.slots_used))

    def _cell(self, entry: int) -> Cell:
        return Cell(self._memory, Layout.source_buckets + entry * CELL)

    def _find(self, key: bytes) -> int | None:
        """The place of a key; None if it has none."""
        first = int.from_bytes(key[:4], "little") % SETS * WAYS
        begin = self._memory.start + Layout.keys + first * KEY
        at, end = begin, begin + WAYS * KEY
        while (at := self._memory.map.find(key, at, end)) >= 0:
            if (at - begin) % KEY == 0:
                return first + (at - begin) // KEY
            at += 1
        return None

    def _entry(self, key: bytes) -> int | None:
        """The place of a key, which it is given if it has none; None if its set is full."""
        found = self._find(key)
        if found is not None:
            return found
        first = int.from_bytes(key[:4], "little") % SETS * WAYS
        now = self._clock() * self._units.get().per_ns
        begin = self._memory.start + Layout.keys
        for entry in range(first, first + WAYS):
            at = begin + entry * KEY
            if self._memory.map[at : at + KEY] == EMPTY or self._is_vacant(entry, now):
                # It has no connection and a full bucket: with another key it is as good as new.
                self._memory.map[at : at + KEY] = key
                return entry
        return None

    def _is_vacant(self, entry: int, now: int) -> bool:
        return self._cell(entry).get() <= now and not self._open(entry)
