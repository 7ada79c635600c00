"""The limits of single sources: how many connections each has open, and the tokens of its bucket.

A source is one entry of a table, so that a client finds its count and its bucket with one look. An entry is as good as
a new one once it has no connection and a full bucket. It is forgotten when another source comes, unless the table holds
only a few. Buckets fill up by themselves, so the entries that may have to be forgotten are in a heap, in the order of a
moment at which their bucket would once have been full. Moments only move ahead: a bucket whose old moment has not come
cannot be full yet, and any other is put back with its present moment. A flood of sources therefore cannot push out one
that is limited.
"""

from __future__ import annotations

import itertools
import sys
import time
from heapq import heapify, heappop, heappush, heapreplace
from typing import TYPE_CHECKING, Final

from esockd_core._admission.denial import Denial
from esockd_core._admission.units import Units, converted
from esockd_core._stats.counters import Refused
from esockd_ratelimit import source_key

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from esockd_ratelimit import Rate

MOST_LIMITED: Final = 65_536  # sources whose bucket is not full: a bound on memory
KEPT: Final = 1024  # sources of which none is forgotten, because many come back, and then cost less than a new one
FORGET_PER_NEW: Final = 8  # more go than come, so that the table shrinks
FORGET_AT_MOST: Final = 1024  # where the table is full: so no new source pays for more than a millisecond of sweeping
NO_RATE: Final = Units(0, 0, 0)  # a token costs nothing


class Source:
    """One source.

    Attributes:
        key: The key of its addresses; see `source_key`.
        open: How many connections it has open.
        full_at: The moment at which its bucket is full again; 0 if it is not in the heap.
        is_queued: Whether it is in the heap.
    """

    __slots__ = ("full_at", "is_queued", "key", "open")

    def __init__(self, key: Hashable, full_at: int = 0, is_queued: bool = False) -> None:
        self.key = key
        self.open = 0
        self.full_at = full_at
        self.is_queued = is_queued


class Sources:
    """The sources of one listener.

    Args:
        clock: Gives nanoseconds, and never runs backwards.
    """

    __slots__ = ("_by_key", "_clock", "_heap", "_most", "_numbers", "_per_ns", "_room_for_one", "_token", "_units")

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock = clock
        self._by_key: dict[Hashable, Source] = {}
        self._heap: list[tuple[int, int, Source]] = []
        self._numbers = itertools.count()
        self._most = sys.maxsize
        self._use(NO_RATE)

    def configure(self, most: int | None, rate: Rate | None) -> None:
        """Put other limits in force. A bucket keeps its tokens, as far as the new burst holds them.

        Args:
            most: How many connections a source may have open; None for any number.
            rate: How fast it may make them; None for any rate.
        """
        self._most = sys.maxsize if most is None else most
        old, new = self._units, NO_RATE if rate is None else Units.of(rate)
        if old == new:
            return
        queued, now_ns = [source for _, _, source in self._heap], self._clock()
        self._use(new)
        if new.token and not old.token:  # every bucket is full, and so none is in the heap
            queued = []
            self._by_key = {key: source for key, source in self._by_key.items() if source.open}
            for source in self._by_key.values():
                source.is_queued = False
        for source in queued:
            source.full_at = converted(source.full_at, old, new, now_ns) if new.token else 0
        self._heap = [(source.full_at, next(self._numbers), source) for source in queued]
        heapify(self._heap)

    def copy(self) -> Sources:
        """The same limits and tokens, and no connection. This visits every source whose bucket may not be full."""
        twins = Sources(self._clock)
        twins._most = self._most
        twins._use(self._units)
        twins._heap = [(at, number, Source(each.key, each.full_at, True)) for at, number, each in self._heap]
        twins._by_key = {twin.key: twin for _, _, twin in twins._heap}
        twins._numbers = itertools.count(next(self._numbers))
        return twins

    def spend(self, host: str) -> Source | None:
        """Take a token of a host's source.

        Returns:
            The source; None, and `denial` says why, if it has no place or no token left.
        """
        source = self._by_key.get(host) or self._find(host)  # an IPv4 address is its own key
        if source.open >= self._most:
            return None
        if self._token:
            now = self._clock() * self._per_ns
            if source.full_at <= now:  # a full bucket always has one token
                if not source.is_queued and not self._enter(source, now):
                    return None
                source.full_at = now + self._token
            elif source.full_at - now > self._room_for_one:
                return None
            else:
                source.full_at += self._token
        return source

    def denial(self, host: str) -> Denial:
        """Why `spend` has just refused a host."""
        if self.open_connections(source_key(host)) >= self._most:
            return Denial(Refused.MAX_LIMIT, f"max_connections_per_source is {self._most}")
        return Denial(Refused.RATE_LIMITED, "max_conn_rate_per_source has no token left")

    def take(self, host: str) -> Source:
        """Count a connection of a host that needs no token."""
        source = self._find(host)
        self._by_key[source.key] = source
        source.open += 1
        return source

    def release(self, source: Source) -> None:
        """Count a connection no more."""
        source.open -= 1
        if not source.open and not source.is_queued:
            self.drop(source)

    def drop(self, source: Source) -> None:
        """Forget a source that is as good as a new one."""
        del self._by_key[source.key]

    def open_connections(self, key: Hashable) -> int:
        """How many connections a source has open."""
        source = self._by_key.get(key)
        return 0 if source is None else source.open

    def wait_time(self, key: Hashable) -> float:
        """Seconds until a source has a token, if the table has room for its bucket."""
        now = self._clock() * self._per_ns
        source = self._by_key.get(key)
        full_at = now if source is None else max(source.full_at, now)
        wait = full_at - now - self._room_for_one
        if (source is None or not source.is_queued) and len(self._heap) >= MOST_LIMITED:
            wait = max(wait, self._heap[0][0] - now)
        return self._units.seconds(wait)

    def clear(self) -> None:
        """Forget everything."""
        self._by_key.clear()
        self._heap.clear()

    def _use(self, units: Units) -> None:
        self._units = units
        self._per_ns, self._token, capacity = units
        self._room_for_one = capacity - self._token  # the most debt at which one token more is granted

    def _find(self, host: str) -> Source:
        """The entry of a host's source, or a new one."""
        key = source_key(host)
        source = self._by_key.get(key)
        if source is None:
            source = Source(key)
            if not self._token:  # with a rate it enters the table once it takes a token
                self._enter(source, 0)
        return source

    def _enter(self, source: Source, now: int) -> bool:
        """Put a source into the heap, and into the table if it is new; return whether there was room."""
        if len(self._heap) >= KEPT:
            self._forget(now, FORGET_PER_NEW)
        if len(self._heap) >= MOST_LIMITED:
            self._forget(now, FORGET_AT_MOST)
            if len(self._heap) >= MOST_LIMITED:
                return False
        source.is_queued = True
        self._by_key[source.key] = source
        heappush(self._heap, (now + self._token, next(self._numbers), source))
        return True

    def _forget(self, now: int, at_most: int) -> None:
        """Forget some of the sources whose bucket is full, except those with connections."""
        heap = self._heap
        for _ in range(at_most):
            if not heap or heap[0][0] > now:
                break
            source = heap[0][2]
            if source.full_at > now:
                heapreplace(heap, (source.full_at, next(self._numbers), source))
                continue
            heappop(heap)
            source.full_at, source.is_queued = 0, False
            if not source.open:
                del self._by_key[source.key]
