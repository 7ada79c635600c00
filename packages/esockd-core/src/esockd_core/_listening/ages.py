"""Connections of `max_age`: each is asked to end at its own time, and cut if it does not."""

from __future__ import annotations

import time
from collections import deque
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final

from anyio.lowlevel import checkpoint

from esockd_core._stats.reasons import MAX_AGE

if TYPE_CHECKING:
    from esockd_core._connection.served import ServedConnection
    from esockd_core._connection.site import Site

DEFAULT_JITTER: Final = 0.1  # of the age, as gRPC's MAX_CONNECTION_AGE has it
LOOKS: Final = 8  # for new connections, before the first of them may be due
AT_A_TIME: Final = 256  # connections asked before the event loop gets its turn
SCANNED_AT_A_TIME: Final = 4_096  # the same for connections that are only looked at
CANCEL_GRACE_S: Final = 1.0  # for a handler that was cancelled to end, before its socket is reset; as in a drain


class Ages:
    """Asks the connections of one listener to end at `max_age`.

    It keeps ids and times only. A connection that ends earlier is forgotten when its time comes.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._in_force: tuple[float, float] | None = None
        self._due: list[tuple[float, int]] = []
        self._known: set[int] = set()
        self._told: deque[tuple[float, int]] = deque()
        self._cancelled: deque[tuple[float, int]] = deque()
        self._nobody_before: float | None = None  # no connection is known that is older
        self._next_scan = 0.0

    async def look(self, now: float) -> None:
        """Ask the connections that are due, and cut those that had enough time. Called a few times a second.

        Args:
            now: By the event loop's clock.
        """
        options = self._site.options
        if self._nobody_before is None:
            self._nobody_before = now
        if options.max_age is None:
            in_force = None
        else:
            jitter = options.max_age * DEFAULT_JITTER if options.max_age_jitter is None else options.max_age_jitter
            in_force = (options.max_age, min(jitter, options.max_age))
        if in_force != self._in_force:
            self._in_force = in_force
            self._due.clear()
            self._known.clear()
            self._next_scan = now
        if in_force is not None:
            if now >= self._next_scan:
                await self._scan(now, self._nobody_before, *in_force)
            self._tell(now)
        if self._told:
            self._cut(now)
        if self._cancelled:
            self._abort(now)

    def next_look(self) -> float:
        """Seconds until the next look, by the options in force."""
        waits = [each for each in (self._site.options.max_age, self._site.options.shutdown_timeout) if each is not None]
        return min(waits, default=0.0) if self._told or self._site.options.max_age is not None else float("inf")

    async def _scan(self, now: float, nobody_before: float, max_age: float, jitter: float) -> None:
        """Note when connections that are new will be due."""
        self._next_scan = now + max(max_age - jitter, max_age / LOOKS) / LOOKS
        wall = time.time()
        for position, (connection_id, connection) in enumerate(list(self._site.registry.connections.items()), start=1):
            if connection_id not in self._known and not connection.draining:
                self._known.add(connection_id)
                age = min(max(0.0, wall - connection.opened_at), now - nobody_before)  # the clock may have been set
                heappush(self._due, (now - age + max_age - jitter * _share(connection_id), connection_id))
            if position % SCANNED_AT_A_TIME == 0:
                await checkpoint()

    def _tell(self, now: float) -> None:
        for _ in range(AT_A_TIME):
            if not self._due or self._due[0][0] > now:
                break
            _, connection_id = heappop(self._due)
            self._known.discard(connection_id)
            connection = self._find(connection_id)
            if connection is not None and not connection.draining:
                connection.request_draining()
                self._told.append((now, connection_id))

    def _cut(self, now: float) -> None:
        timeout = self._site.options.shutdown_timeout
        if timeout is None:  # they have all the time they want
            self._told.clear()
            return
        while self._told and self._told[0][0] + timeout <= now:
            _, connection_id = self._told.popleft()
            connection = self._find(connection_id)
            if connection is not None:
                connection.cancel_handler(MAX_AGE)
                self._site.watch.killed.add(connection)  # a handler that swallows the cancellation does not get to stay
                self._cancelled.append((now, connection_id))

    def _abort(self, now: float) -> None:
        while self._cancelled and self._cancelled[0][0] + CANCEL_GRACE_S <= now:
            _, connection_id = self._cancelled.popleft()
            connection = self._find(connection_id)
            if connection is not None and connection.state == "open":  # otherwise it is delivering what was sent last
                connection.abort(MAX_AGE)

    def _find(self, connection_id: int) -> ServedConnection | None:
        return self._site.registry.connections.get(connection_id)


def _share(connection_id: int) -> float:
    """A number from 0 to 1 that is a connection's own, without memory: Knuth's multiplicative hash."""
    return (connection_id * 2_654_435_761 & 0xFFFF_FFFF) / 2**32
