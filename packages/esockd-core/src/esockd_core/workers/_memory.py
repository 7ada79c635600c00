"""The memory of one listener that the worker processes of a program share.

Every number in it has one writer, or is written under its lock. A process that is killed in the middle
of anything leaves the numbers as they were before or as they are after, because each is written at once: eight aligned
bytes, or a longer value beside the one in force and then the switch to it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final
from weakref import finalize

from esockd_core._platform.shared_memory import SharedLock, make_shared_file, map_shared_file

if TYPE_CHECKING:
    from mmap import mmap

SLOTS: Final = 128
"""The most worker processes at once, those that retire included. Each has a slot as long as it lives."""

WORD: Final = 8
WIDE: Final = 16  # bytes of an integer that may not fit into a word
CELL: Final = WORD + 2 * WIDE  # the position of the value in force, and the two places
HEAD: Final = 64

COUNTER_WORDS: Final = 16
REASONS: Final = 112  # more than this package's own, those of handlers and "other" together
REASON_BYTES: Final = 56
COUNTERS: Final = COUNTER_WORDS * WORD + REASONS * (REASON_BYTES + WORD)

SETS: Final = 2_048  # of sources; a power of two
WAYS: Final = 64  # sources in a set
SOURCES: Final = SETS * WAYS
KEY: Final = 16

UNITS: Final = 3 * WIDE + WORD  # of a bucket: per nanosecond, token, capacity; and a version


class Layout:
    """Where the parts of one listener are, from the start of its memory."""

    places = 0
    bucket_units = places + SLOTS * WORD
    bucket = bucket_units + UNITS
    source_units = bucket + CELL
    has_sources = source_units + UNITS
    counters = has_sources + WORD  # aligned to words, all of them
    keys = counters + SLOTS * COUNTERS
    source_buckets = keys + SOURCES * KEY
    source_places = source_buckets + SOURCES * CELL
    size = (source_places + SLOTS * SOURCES * 4 + 4095) // 4096 * 4096


class SharedMemory:
    """The memory of one listener. It has two parts: its own, and that of its rehearsals.

    Args:
        descriptor: Its file, which is closed with this object.

    Attributes:
        descriptor: Its file.
        lock: Held while limits are judged.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._close = finalize(self, os.close, descriptor)
        self._map = map_shared_file(descriptor)
        self._head = memoryview(self._map)[:HEAD].cast("q")
        self.lock: SharedLock = SharedLock(descriptor)

    @classmethod
    def create(cls) -> SharedMemory:
        """Make the memory of a new listener.

        Raises:
            OSError: If the system lacks descriptors or space.
        """
        memory = cls(make_shared_file(HEAD + 2 * Layout.size))
        memory._map[HEAD - KEY : HEAD] = os.urandom(KEY)  # so that nobody can choose sources of one set
        return memory

    @property
    def secret(self) -> bytes:
        """What the keys of sources are hashed with."""
        return self._map[HEAD - KEY : HEAD]

    @property
    def slots_used(self) -> int:
        """All slots from this one on are free and were never used."""
        return self._head[0]

    def use_slot(self, slot: int) -> None:
        """Note that a process has a slot."""
        self._head[0] = max(self._head[0], slot + 1)

    @property
    def live(self) -> ListenerMemory:
        """Its own part."""
        return ListenerMemory(self, self._map, HEAD)

    @property
    def imagined(self) -> ListenerMemory:
        """The part of the listener that a rehearsal imagines beside the live one."""
        return ListenerMemory(self, self._map, HEAD + Layout.size)

    def close(self) -> None:
        """Close the file, and unmap it unless somebody has a part of it yet. Nobody may use it any more."""
        self._close()
        self.lock.close()
        self._head.release()
        with suppress(BufferError):
            self._map.close()


class ListenerMemory:
    """The memory of one listener, live or imagined.

    Attributes:
        whole: Both parts together.
        lock: Held while limits are judged; both parts have the same.
        places: The places of `max_connections` that the process of each slot holds; only it writes its own.
        bytes: All bytes of this part.
        map: The same, with `find`.
        start: Where they begin in the map.
    """

    def __init__(self, whole: SharedMemory, mapped: mmap, start: int) -> None:
        self.whole = whole
        self.map = mapped
        self.start = start
        self.bytes: memoryview[int] = memoryview(mapped)[start : start + Layout.size]
        self.lock: SharedLock = whole.lock
        self.places: memoryview[int] = self.words(Layout.places, SLOTS)

    @property
    def imagined(self) -> ListenerMemory:
        """The memory of its rehearsals."""
        return self.whole.imagined

    def words(self, at: int, number: int) -> memoryview[int]:
        """A number of words from a place on."""
        return self.bytes[at : at + number * WORD].cast("q")

    @property
    def has_sources(self) -> bool:
        """Whether any source was ever limited or counted."""
        return bool(self.words(Layout.has_sources, 1)[0] or self.words(Layout.source_units + 3 * WIDE, 1)[0])

    def begin_as(self, other: ListenerMemory) -> None:
        """Take over the tokens of another one, and hold no place. The caller has the lock of both."""
        begin, end = Layout.keys, Layout.source_places
        if self.has_sources:  # or nothing was ever written there, and these pages take no memory
            used = self.whole.slots_used * SOURCES * 4
            self.bytes[begin:end] = bytes(end - begin)
            self.bytes[end : end + used] = bytes(used)
        if other.has_sources:
            self.bytes[begin:end] = other.bytes[begin:end]
        self.bytes[: Layout.counters] = other.bytes[: Layout.counters]
        self.places[:] = memoryview(bytes(SLOTS * WORD)).cast("q")

    def close(self) -> None:
        """Let go of this part, and close the whole."""
        self.places.release()
        self.bytes.release()
        self.whole.close()

    def taken(self) -> int:
        """The places that all processes hold."""
        return sum(self.places[: self.whole.slots_used])


class Cell:
    """A whole number that is wider than a word. It is written under the lock of its listener.

    Args:
        memory: The listener's memory.
        at: Its place.
    """

    __slots__ = ("_bytes", "_which")

    def __init__(self, memory: ListenerMemory, at: int) -> None:
        self._which = memory.words(at, 1)
        self._bytes = memory.bytes[at + WORD : at + CELL]

    def close(self) -> None:
        """Let go of the memory."""
        self._which.release()
        self._bytes.release()

    def get(self) -> int:
        """The number."""
        begin = self._which[0] * WIDE
        return int.from_bytes(self._bytes[begin : begin + WIDE], "little", signed=True)

    def set(self, value: int) -> None:
        """Write the number beside the one in force, then switch."""
        other = 1 - self._which[0]
        self._bytes[other * WIDE : (other + 1) * WIDE] = value.to_bytes(WIDE, "little", signed=True)
        self._which[0] = other
