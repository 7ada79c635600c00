"""A clock that moves only when told to, for tests of programs that use limiters."""

from __future__ import annotations

import heapq
import itertools
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class FakeClock:
    """A clock for buckets. `advance` moves it, and wakes callers that wait for it in `acquire`.

    After `advance`, let the woken tasks run, for example with `anyio.wait_all_tasks_blocked()`.

    Args:
        start_ns: The nanoseconds it shows at first.

    Attributes:
        now_ns: The nanoseconds it shows.
    """

    def __init__(self, start_ns: int = 0) -> None:
        self.now_ns: int = start_ns
        self._alarms: list[tuple[int, int, Callable[[], object]]] = []
        self._numbers = itertools.count()

    def __call__(self) -> int:
        """The nanoseconds it shows."""
        return self.now_ns

    def advance(self, seconds: float) -> None:
        """Move by some seconds, rounded to whole nanoseconds; a negative number turns the clock back."""
        self.now_ns += round(seconds * 1e9)
        self._ring()

    @contextmanager
    def wake_at(self, deadline_ns: int, wake: Callable[[], object]) -> Iterator[None]:
        """Call `wake` once the clock shows `deadline_ns`, unless the context is left before. Buckets call this."""
        alarm = (deadline_ns, next(self._numbers), wake)
        heapq.heappush(self._alarms, alarm)
        self._ring()
        try:
            yield
        finally:
            if alarm in self._alarms:
                self._alarms.remove(alarm)
                heapq.heapify(self._alarms)

    def _ring(self) -> None:
        while self._alarms and self._alarms[0][0] <= self.now_ns:
            heapq.heappop(self._alarms)[2]()
