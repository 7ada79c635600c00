"""What one bucket and a bucket a key have in common: a server that may be away, a rate, and bounded waiting."""

from __future__ import annotations

from contextlib import contextmanager
from fractions import Fraction
from typing import TYPE_CHECKING

from esockd_ratelimit._checks import check_count
from esockd_ratelimit._errors import BurstExceeded, QueueFull
from esockd_ratelimit._rate import Rate
from esockd_ratelimit._units import checked

from ._server import BucketServer, ServerAway, WhenAway

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis

    from esockd_ratelimit._rate import Number, RateLike


class SharedBucket:
    """The base of the buckets that a server keeps; see `RedisTokenBucket` for the arguments.

    Raises:
        InvalidRate: If the rate or the burst is not valid, or needs numbers above 2**53 in the script.
        InvalidOption: If another argument is not valid.
    """

    def __init__(
        self,
        server: str | redis.Redis,
        name: str,
        rate: RateLike,
        burst: Number | None,
        *,
        when_away: WhenAway,
        timeout: float,
        retry_interval: float,
        max_waiters: int | None,
        processes: int,
        on_change: Callable[[ServerAway | None], None] | None,
    ) -> None:
        check_count(max_waiters, "max_waiters", 0, optional=True)
        check_count(processes, "processes", 1)
        self.name = name
        self.when_away: WhenAway = when_away
        self._rate = Rate.of(rate, burst)
        self._local_rate = Rate(self._rate.per_s / processes, max(self._rate.burst / processes, Fraction(1)))
        self._server = BucketServer(
            server,
            self._rate,
            when_away=when_away,
            timeout=timeout,
            retry_interval=retry_interval,
            on_change=on_change,
        )
        self._max_waiters = max_waiters
        self._waiters = 0

    @property
    def rate(self) -> Rate:
        """Tokens a second, and the burst; of each key, if there are keys."""
        return self._rate

    @property
    def waiters(self) -> int:
        """How many callers wait in `acquire`."""
        return self._waiters

    @property
    def away(self) -> ServerAway | None:
        """Why the server counts as away, or None while it answers."""
        return self._server.away

    def _check(self, n: int) -> None:
        """Check a number of tokens.

        Raises:
            BurstExceeded: If it is more than a bucket ever holds.
            InvalidTokens: If it is negative or not whole.
        """
        if checked(n) > self._rate.burst:
            raise BurstExceeded(n, self._rate.burst)

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        """Count one more caller that waits.

        Raises:
            QueueFull: If `max_waiters` callers already wait.
        """
        if self._waiters == self._max_waiters:
            raise QueueFull(self._waiters)
        self._waiters += 1
        try:
            yield
        finally:
            self._waiters -= 1
