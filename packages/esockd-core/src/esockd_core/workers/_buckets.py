"""Token buckets of all workers together: the arithmetic of `esockd_ratelimit`, with its state in shared memory."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from esockd_core._admission.units import Units, converted
from esockd_core._errors import InvalidOption
from esockd_core.workers._memory import UNITS, WIDE, Cell, Layout

if TYPE_CHECKING:
    from collections.abc import Callable

    from esockd_core.workers._memory import ListenerMemory
    from esockd_ratelimit import Rate

LARGEST: Final = 1 << (8 * WIDE - 2)
LATEST_NS: Final = 1 << 62


def shared_units(rate: Rate, option: str) -> Units:
    """The units of a rate.

    Raises:
        InvalidOption: If its numbers are too large for shared memory.
    """
    units = Units.of(rate)
    if max(units.per_ns * LATEST_NS, units.capacity) >= LARGEST:
        raise InvalidOption("it is too fine a fraction for several workers", option=option, value=str(rate))
    return units


class SharedUnits:
    """The units in force, which the parent changes for all workers at once.

    Args:
        memory: The listener's memory.
        at: The place of the units.
    """

    def __init__(self, memory: ListenerMemory, at: int) -> None:
        self._bytes = memory.bytes[at : at + UNITS]
        self._version = memory.words(at + 3 * WIDE, 1)
        self._read_at = 0
        self._units = Units(0, 1, 0)

    def get(self) -> Units:
        """The units in force."""
        if self._read_at != self._version[0]:
            self._read_at = self._version[0]
            parts = (self._bytes[n * WIDE : (n + 1) * WIDE] for n in range(3))
            self._units = Units(*(int.from_bytes(part, "little") for part in parts))
        return self._units

    def close(self) -> None:
        """Let go of the memory."""
        self._bytes.release()
        self._version.release()

    @property
    def is_set(self) -> bool:
        """Whether there are any."""
        return bool(self._version[0])

    def set(self, units: Units) -> None:
        """Put other units in force; for the parent, with the lock."""
        for number, part in enumerate(units):
            self._bytes[number * WIDE : (number + 1) * WIDE] = part.to_bytes(WIDE, "little")
        self._version[0] += 1


class SharedBucket:
    """The bucket of `max_conn_rate`. Its caller holds the lock of the listener, except to ask for the wait.

    Args:
        memory: The listener's memory.
        clock: Gives nanoseconds, the same in every process.
    """

    def __init__(self, memory: ListenerMemory, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._units = SharedUnits(memory, Layout.bucket_units)
        self._cell = Cell(memory, Layout.bucket)
        self._clock = clock

    def close(self) -> None:
        """Let go of the memory."""
        self._units.close()
        self._cell.close()

    def try_acquire(self) -> bool:
        """Take a token if there is one."""
        units = self._units.get()
        now = self._clock() * units.per_ns
        full_at = max(self._cell.get(), now) + units.token
        if full_at - now > units.capacity:
            return False
        self._cell.set(full_at)
        return True

    def give_back(self) -> None:
        """Give back a token that was taken just now."""
        self._cell.set(self._cell.get() - self._units.get().token)

    def wait_time(self) -> float:
        """Seconds until there is a token."""
        units = self._units.get()
        now = self._clock() * units.per_ns
        return units.seconds(max(self._cell.get(), now) + units.token - units.capacity - now)

    def configure(self, units: Units) -> None:
        """Put a rate in force; for the parent. A bucket that had none before starts full."""
        now_ns = self._clock()
        full_at = now_ns * units.per_ns
        if self._units.is_set:
            full_at = converted(self._cell.get(), self._units.get(), units, now_ns)
        self._cell.set(full_at)
        self._units.set(units)

    def fill(self) -> None:
        """Fill the bucket, because its rate was switched off; for the parent."""
        self._cell.set(self._clock() * self._units.get().per_ns)
