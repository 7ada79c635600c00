"""When messages are to be sent."""

from __future__ import annotations

from typing import Final

NS: Final = 1_000_000_000


class Schedule:
    """The moments at which messages are due, which do not wait for answers.

    The n-th message is due at `n / rate` seconds, whatever became of those before. A latency counts from that moment,
    so that a server that stood still for a second has a second against it for every message of that second, and not
    only for the one that happened to be under way (Gil Tene, "How NOT to Measure Latency").

    Without a rate, a message is due when somebody asks for it.

    Args:
        rate: Messages a second; None for no rate.
        requests: How many at most.
        duration: Seconds in which messages are due.

    Attributes:
        taken: How many were taken.
    """

    def __init__(self, rate: float | None, requests: int | None, duration: float) -> None:
        self._rate = rate
        self._duration_ns = int(duration * NS)
        in_time = None if rate is None else max(1, int(rate * duration))
        self._count = min((each for each in (in_time, requests) if each is not None), default=None)
        self._begun = 0
        self.taken: int = 0

    def begin(self, now: int) -> None:
        """Begin at a moment of the clock, in nanoseconds."""
        self._begun = now

    def take(self, now: int) -> int | None:
        """Take the next message that is due.

        Returns:
            The moment at which it was due; None if none is.
        """
        due = self.next_due(now)
        if due is None or due > now:
            return None
        self.taken += 1
        return due

    def next_due(self, now: int) -> int | None:
        """The moment at which the next message is due; None where no more come."""
        if self._count is not None and self.taken >= self._count:
            return None
        if self._rate is None:
            return now if now < self._begun + self._duration_ns else None
        return self._begun + int(self.taken * NS / self._rate)

    def unsent(self) -> int:
        """How many with a rate were not taken."""
        return 0 if self._rate is None or self._count is None else self._count - self.taken
