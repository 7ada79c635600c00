"""The token bucket: the Generic Cell Rate Algorithm (ITU-T I.371) in whole numbers.

Its whole state is one moment, `_full_at`, in the units of `_units`: the moment at which the bucket is full again if
nobody takes any more (the Recommendation calls it the "theoretical arrival time"). Taking a token moves it ahead by one
token's worth; it may lie at most `_capacity`, the burst, ahead of now.
"""

from __future__ import annotations

import math
import time
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Final, Self

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

from ._cancellation import may_be_cancelled
from ._checks import check_count
from ._clock import Clock, forward_only, wait_until
from ._errors import BurstExceeded, WaitTooLong
from ._rate import Rate
from ._units import Units, checked, seconds
from ._waiters import Claim, ClaimQueue

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._rate import Number, RateLike

MAX_WAITERS: Final = 1024


class Reservation:
    """Tokens promised for now or for a later moment. `TokenBucket.reserve` makes them.

    Attributes:
        tokens: How many.
    """

    __slots__ = ("_bucket", "_claim", "tokens")

    def __init__(self, bucket: TokenBucket, claim: Claim) -> None:
        self.tokens: int = claim.tokens
        self._bucket = bucket
        self._claim = claim

    def wait_time(self) -> float:
        """Seconds until the tokens are yours; 0.0 once they are. Falls when an earlier promise is cancelled."""
        return self._bucket._wait_of(self._claim)  # noqa: SLF001 - a reservation is a handle of its bucket

    def cancel(self) -> None:
        """Give the tokens back, unused.

        Before they fall due, all of them go back, and those queued behind move up. Afterwards only what time has not
        refilled since goes back, so that cancelling never lets more through than rate and burst allow. A second call
        does nothing.
        """
        self._bucket._cancel(self._claim)  # noqa: SLF001 - as above


class TokenBucket:
    """A bucket that holds `burst` tokens, starts full, and refills at `rate`: exactly, at any rate, for ever.

    Within any t seconds it grants at most `burst + rate * t` tokens, and never one less than that allows. It is not
    thread-safe: use it in one thread, such as that of the event loop.

    Args:
        rate: Tokens a second: a number (a float counts as the decimal it prints as), text such as `5/min`, or a
            `Rate`. 0 makes the burst a one-off allowance.
        burst: The most tokens the bucket holds, at least 1. By default one second's worth and at least 1.
        clock: Gives nanoseconds. One that jumps backwards counts as standing still meanwhile.
        max_waiters: How many callers may wait in `acquire` at once; None for no bound.

    Raises:
        InvalidRate: If the rate or the burst is not valid.
        InvalidOption: If `max_waiters` is negative, or the clock does not give whole nanoseconds.
    """

    __slots__ = (
        "__weakref__",
        "_capacity",
        "_clock",
        "_full_at",
        "_now",
        "_per_ns",
        "_queue",
        "_rate",
        "_room_for_one",
        "_token",
    )

    def __init__(
        self,
        rate: RateLike,
        burst: Number | None = None,
        clock: Clock = time.monotonic_ns,
        *,
        max_waiters: int | None = MAX_WAITERS,
    ) -> None:
        check_count(max_waiters, "max_waiters", 0, optional=True)
        self._clock = clock
        self._now = forward_only(clock)
        self._queue = ClaimQueue(max_waiters)
        self._rate = Rate.of(rate, burst)
        self._set_units(Units.of(self._rate))
        self._full_at = self._now() * self._per_ns

    @property
    def rate(self) -> Rate:
        """Tokens a second, and the burst."""
        return self._rate

    @property
    def waiters(self) -> int:
        """How many callers wait in `acquire`."""
        return len(self._queue)

    def try_acquire(self, n: int = 1) -> bool:
        """Take n tokens now, or none.

        Returns:
            Whether they were taken; 0 tokens always are. Nobody overtakes callers that wait in `acquire` or hold a
            reservation.

        Raises:
            BurstExceeded: If n is more than the bucket ever holds.
            InvalidTokens: If n is negative or not whole.
        """
        now = self._now() * self._per_ns
        full_at = self._full_at
        if n != 1:
            return self._try_acquire_many(n, now)
        if full_at <= now:
            self._full_at = now + self._token  # a full bucket always has one token
            return True
        if full_at - now > self._room_for_one:
            return False
        self._full_at = full_at + self._token
        return True

    def wait_time(self, n: int = 1) -> float:
        """Seconds until `try_acquire(n)` would return True if nobody else took tokens.

        Returns:
            0.0 if it would now, and `math.inf` if it never would, at rate 0. Rounded up to whole nanoseconds.

        Raises:
            BurstExceeded: If n is more than the bucket ever holds.
            InvalidTokens: If n is negative or not whole.
        """
        cost = self._cost(n)
        if not cost:
            return 0.0
        now = self._now() * self._per_ns
        return seconds(max(self._full_at, now) + cost - self._capacity - now, self._per_ns)

    def peek(self) -> int:
        """The most tokens that `try_acquire` would grant now."""
        now = self._now() * self._per_ns
        return max((self._capacity - max(self._full_at - now, 0)) // self._token, 0)

    def reserve(self, n: int = 1, max_wait: float | None = None) -> Reservation:
        """Take n tokens for the first moment at which all promises made before are kept.

        Args:
            n: How many, at most the burst.
            max_wait: The most seconds that the caller would wait; None for no limit.

        Raises:
            WaitTooLong: If it would take longer, or for ever at rate 0; nothing was charged.
            BurstExceeded: If n is more than the bucket ever holds.
            InvalidTokens: If n is negative or not whole.
        """
        cost, now = self._cost(n), self._settle()
        wait_s = seconds(max(self._full_at, now) + cost - self._capacity - now, self._per_ns) if n else 0.0
        limit_s = math.inf if max_wait is None else max_wait
        if wait_s > limit_s or wait_s == math.inf:
            raise WaitTooLong(n, wait_s, limit_s)
        return Reservation(self, self._claim(Claim(n, cost), now))

    async def acquire(self, n: int = 1) -> None:
        """Take n tokens, waiting for them in turn: first come, first served, and nobody overtakes.

        When the tokens are there, this costs a check for cancellation and no trip through the event loop. At rate 0 it
        waits until somebody calls `reconfigure` or gives tokens back. A caller that is cancelled gives back what it was
        promised, and those behind it move up.

        Raises:
            QueueFull: If `max_waiters` callers already wait; nothing was charged.
            BurstExceeded: If n is more than the bucket ever holds.
            InvalidTokens: If n is negative or not whole.
        """
        if may_be_cancelled():
            await checkpoint_if_cancelled()
        if not self.try_acquire(n):
            await self._wait_for(n)

    def reconfigure(self, rate: RateLike, burst: Number | None = None) -> None:
        """Go on with another rate and burst, given as for the constructor.

        The bucket keeps its tokens, as far as the new burst holds them. Waiting callers and open reservations keep
        their places and get their tokens at the new rate.

        Raises:
            InvalidRate: If the rate or the burst is not valid; nothing was changed.
        """
        new = Rate.of(rate, burst)
        missing = Fraction(max(self._full_at - self._settle(), 0), self._token)
        missing = max(missing + new.burst - self._rate.burst, Fraction(0))
        units = Units.of(new, missing)
        self._adopt(new, units, int(missing * units.token))

    def __copy__(self) -> Self:
        """A bucket with the same rate, clock and tokens, in which nobody waits."""
        bucket = type(self)(self._rate, None, self._clock, max_waiters=self._queue.max_waiters)
        bucket._set_units(Units(self._per_ns, self._token, self._capacity))  # noqa: SLF001 - of this class
        bucket._full_at = self._full_at  # noqa: SLF001 - as above
        return bucket

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._rate}, {self.peek()} tokens, {self.waiters} waiting>"

    def _try_acquire_many(self, n: int, now: int) -> bool:
        full_at = max(self._full_at, now) + self._cost(n)
        if full_at - now > self._capacity:
            return n == 0
        self._full_at = full_at
        return True

    def _cost(self, n: int) -> int:
        """Units of n tokens, if such a request can ever be granted."""
        cost = checked(n) * self._token
        if cost > self._capacity:
            raise BurstExceeded(n, self._rate.burst)
        return cost

    def _adopt(self, rate: Rate, units: Units, missing: int) -> None:
        """Go on in other units; `missing` of them would fill the bucket."""
        self._rate = rate
        self._set_units(units)
        self._full_at = self._now() * self._per_ns + missing
        self._queue.convert(self._full_at, self._token)
        self._settle()

    def _set_units(self, units: Units) -> None:
        self._per_ns, self._token, self._capacity = units
        self._room_for_one = self._capacity - self._token  # the most debt at which one token more is granted

    def _settle(self) -> int:
        """Close the promises that are due; return the present moment."""
        now = self._now() * self._per_ns
        self._queue.settle(now + self._capacity)
        return now

    def _claim(self, claim: Claim, now: int) -> Claim:
        """Charge a promise and put it at the end of the queue."""
        if not claim.cost:
            claim.full_at = now  # nothing to wait for
            return claim
        full_at = max(self._full_at, now) + claim.cost
        self._queue.push(claim, full_at)
        self._full_at = full_at
        self._queue.settle(now + self._capacity)
        return claim

    def _cancel(self, claim: Claim) -> None:
        self._full_at -= self._queue.cancel(claim, self._settle())

    def _wait_of(self, claim: Claim) -> float:
        now = self._settle()
        return (
            0.0
            if claim.full_at is not None
            else seconds(self._queue.due_at(claim) - self._capacity - now, self._per_ns)
        )

    def _return(self, units: int) -> None:
        """Give back tokens taken without a promise."""
        self._full_at -= units
        self._queue.move_up(units)

    async def _hold(self, n: int) -> Callable[[bool], None]:
        """Take n tokens in turn; return a function that lets go of them, and is told whether to give them back."""
        if self.wait_time(n):
            claim = await self._wait_for(n)
        else:
            claim = self._claim(Claim(n, self._cost(n)), self._settle())
        return partial(self._let_go, claim)

    def _let_go(self, claim: Claim, gives_back: bool) -> None:
        if gives_back:
            self._cancel(claim)

    async def _wait_for(self, n: int) -> Claim:
        """Wait in turn for n tokens that are not there yet."""
        claim = self._claim(Claim(n, self._cost(n), anyio.Event()), self._settle())
        try:
            while claim.full_at is None:
                deadline_ns = None
                if claim is self._queue.first_waiter() and self._per_ns:
                    deadline_ns = -((self._capacity - self._queue.due_at(claim)) // self._per_ns)
                claim.wakeup = anyio.Event()
                await wait_until(self._clock, deadline_ns, claim.wakeup)
                self._settle()
        except BaseException:
            self._cancel(claim)
            raise
        return claim
