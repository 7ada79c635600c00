"""The limits of one listener in shared memory, as its parent puts them in force and releases what processes held."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from esockd_core._options.special_kinds import ConnectionRate
from esockd_core.workers._buckets import SharedBucket, shared_units
from esockd_core.workers._sources import SharedSources

if TYPE_CHECKING:
    from esockd_core._admission.units import Units
    from esockd_core._options.listener import ListenerOptions
    from esockd_core.workers._memory import ListenerMemory

RATES: Final = ("max_conn_rate", "max_conn_rate_per_source")


class Limits:
    """The parent's hold on the limits of one listener, live or imagined.

    Args:
        memory: Its memory.
    """

    def __init__(self, memory: ListenerMemory) -> None:
        self._memory = memory
        self._bucket = SharedBucket(memory)
        self._sources = SharedSources(memory, None)

    def put(self, new: ListenerOptions, old: ListenerOptions | None) -> None:
        """Put other rates in force, for all workers at once. The caller has the lock."""
        units = units_of(new, "max_conn_rate")
        if old is None or units != units_of(old, "max_conn_rate"):
            if units is None:
                self._bucket.fill()
            else:
                self._bucket.configure(units)
        units = units_of(new, "max_conn_rate_per_source")
        if old is None or units != units_of(old, "max_conn_rate_per_source"):
            self._sources.configure(units)

    def close(self) -> None:
        """Let go of the memory, and close it."""
        self._bucket.close()
        self._sources.close()
        self._memory.close()

    def forget(self, slot: int) -> None:
        """Release what a process held that has ended."""
        self._memory.places[slot] = 0
        self._sources.forget(slot)


def units_of(options: ListenerOptions, name: str) -> Units | None:
    """The units of a rate; None without one.

    Raises:
        InvalidOption: If its numbers are too large for shared memory.
    """
    given = getattr(options, name)
    return None if given is None else shared_units(ConnectionRate().convert(given), name)
