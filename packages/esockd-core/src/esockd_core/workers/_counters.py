"""The counters of a worker in memory that outlives it, so that none is lost when it is killed.

Each slot has one writer, its process. The parent reads them when the process has ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from esockd_core._stats.counters import Counters
from esockd_core.workers._memory import (
    COUNTER_WORDS,
    COUNTERS,
    REASON_BYTES,
    REASONS,
    WORD,
    Layout,
)

if TYPE_CHECKING:
    from esockd_core.workers._memory import ListenerMemory

NAMES: Final = (
    "accepted", "closed_early", "closed_forbidden", "closed_max_limit", "closed_rate_limited", "closed_overloaded",
    "closed_other_reasons", "closed_sys_limit", "bytes_in", "bytes_out",
)  # fmt: skip
POSITIONS: Final = {name: position for position, name in enumerate(NAMES)}


class SlotCounters:
    """The counters of one slot.

    Args:
        memory: The listener's memory.
        slot: The slot.
    """

    __slots__ = ("_bytes", "_counts", "_known", "words")

    def __init__(self, memory: ListenerMemory, slot: int) -> None:
        begin = Layout.counters + slot * COUNTERS
        self.words = memory.words(begin, COUNTER_WORDS)
        self._counts = memory.words(begin + COUNTER_WORDS * WORD, REASONS)
        names = begin + (COUNTER_WORDS + REASONS) * WORD
        self._bytes = memory.bytes[names : names + REASONS * REASON_BYTES]
        self._known: dict[str, int] = {}

    def count_reason(self, reason: str, count: int) -> None:
        """Note how many connections have ended for a reason."""
        position = self._known.get(reason)
        if position is None:
            position = self._known[reason] = len(self._known)
            text = reason.encode(errors="replace")[:REASON_BYTES]
            self._bytes[position * REASON_BYTES : position * REASON_BYTES + len(text)] = text
        self._counts[position] = count

    def reasons(self) -> dict[str, int]:
        """The ended connections by reason."""
        counts: dict[str, int] = {}
        for position, count in enumerate(self._counts.tolist()):
            if count:
                text = bytes(self._bytes[position * REASON_BYTES : (position + 1) * REASON_BYTES])
                reason = text.rstrip(b"\0").decode(errors="ignore")
                counts[reason] = counts.get(reason, 0) + count
        return counts

    def close(self) -> None:
        """Let go of the memory."""
        for view in (self.words, self._counts, self._bytes):
            view.release()

    def clear(self) -> None:
        """Set everything to 0; for the parent, once the process has ended."""
        self.words[:] = memoryview(bytes(COUNTER_WORDS * WORD)).cast("q")
        self._counts[:] = memoryview(bytes(REASONS * WORD)).cast("q")
        self._bytes[:] = bytes(REASONS * REASON_BYTES)


class _Reasons(dict[str, int]):
    """Counts by reason, written to a slot as well."""

    def __init__(self, slot: SlotCounters) -> None:
        super().__init__()
        self._slot = slot

    def __setitem__(self, reason: str, count: int) -> None:
        super().__setitem__(reason, count)
        self._slot.count_reason(reason, count)


class SharedCounters(Counters):
    """The live numbers of a worker, written to its slot as well.

    Args:
        slot: Its slot.
    """

    def __init__(self, slot: SlotCounters) -> None:
        self._words: memoryview[int] | None = None
        super().__init__(shutdown_counts=_Reasons(slot))
        self._words = slot.words
        self._slot = slot

    def close(self) -> None:
        """Count for this process only from now on, and let go of the memory."""
        self._words = None
        self.shutdown_counts = dict(self.shutdown_counts)
        self._slot.close()

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        if name in POSITIONS and self._words is not None:
            self._words[POSITIONS[name]] = value
