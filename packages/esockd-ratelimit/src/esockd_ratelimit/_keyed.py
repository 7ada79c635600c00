"""A bucket a key, such as the address of a peer, in one number a key.

A key costs one entry of a dict: the moment at which its bucket is full again, in the units of `_units`. A full bucket
is as good as none, so keys whose moment has passed are forgotten, and no other is: a limited key cannot be pushed out
by a flood of new ones. A heap orders the keys by a moment that was theirs once; moments only move ahead, so a key whose
old moment has not come cannot be full yet, and every other is put back with its present moment.
"""

from __future__ import annotations

import heapq
import itertools
import socket
import time
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

from anyio.lowlevel import checkpoint_if_cancelled

from ._bucket import MAX_WAITERS, TokenBucket
from ._clock import Clock, forward_only
from ._errors import BurstExceededError, InvalidRateError, QueueFullError, TooManyKeysError
from ._rate import Rate
from ._units import Units, checked, seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from ._rate import Number

MAX_KEYS: Final = 65_536
FORGET_PER_NEW_KEY: Final = 8  # more go than come: the table shrinks back, and no newcomer pays for a whole sweep
MAPPED_PREFIX: Final = bytes(10) + b"\xff\xff"  # RFC 4291, 2.5.5.2: IPv4-mapped IPv6 addresses

WhenFull = Literal["refuse", "admit", "share"]


def source_key(key: Hashable) -> Hashable:
    """What a source is limited by: an IPv4 address as it is, an IPv6 address by its /64, an IPv4-mapped one as IPv4.

    A /64 is what one subscriber gets (RFC 6177 counsels at least that much), so its addresses count as one source.
    Anything that is no IPv6 address in text counts as it is.
    """
    if not isinstance(key, str) or ":" not in key:
        return key
    try:
        packed = socket.inet_pton(socket.AF_INET6, key.partition("%")[0])
    except OSError:
        return key
    return socket.inet_ntop(socket.AF_INET, packed[12:]) if packed.startswith(MAPPED_PREFIX) else packed[:8]


class KeyedTokenBucket:
    """A `TokenBucket` a key, all with the same rate and burst.

    Args:
        rate: Tokens a second for each key: a number or a `Rate`.
        burst: The most tokens of one key, at least 1. By default one second's worth and at least 1.
        clock: Gives nanoseconds.
        max_keys: How many keys may be limited at once, a hard bound on memory.
        when_full: What happens to a new key when that many others are being limited: `"refuse"` it, `"admit"` it
            without a limit, or let all such keys `"share"` one bucket more.
        key: Maps what is asked for to what is limited. By default a source address by itself, IPv6 by /64.
        max_waiters: How many may wait in `acquire` at once, over all keys; None for no bound.

    Raises:
        InvalidRateError: A number is out of its range, the policy is unknown, or the clock gives no whole nanoseconds.
    """

    def __init__(
        self,
        rate: Number | Rate,
        burst: Number | None = None,
        clock: Clock = time.monotonic_ns,
        *,
        max_keys: int = MAX_KEYS,
        when_full: WhenFull = "refuse",
        key: Callable[[Hashable], Hashable] = source_key,
        max_waiters: int | None = MAX_WAITERS,
    ) -> None:
        if max_keys < 1:
            raise InvalidRateError(f"max_keys must be 1 or more, not {max_keys!r}")
        if when_full not in ("refuse", "admit", "share"):
            raise InvalidRateError(f'when_full must be "refuse", "admit" or "share", not {when_full!r}')
        self.max_keys = max_keys
        self.when_full: WhenFull = when_full
        self._rate = Rate.of(rate, burst)
        self._units = Units.of(self._rate)
        self._per_ns, self._token, self._capacity = self._units
        self._clock = clock
        self._now = forward_only(clock)
        self._key = key
        self._max_waiters = max_waiters
        self._waiters = 0
        self._full_at: dict[Hashable, int] = {}
        self._heap: list[tuple[int, int, Hashable]] = []
        self._numbers = itertools.count()
        self._waited_for: dict[Hashable, TokenBucket] = {}  # keys somebody waits for have a bucket with a queue
        self._overflow = TokenBucket(self._rate, None, clock, max_waiters=max_waiters)

    @property
    def rate(self) -> Rate:
        """Tokens a second and burst of each key."""
        return self._rate

    @property
    def key_count(self) -> int:
        """How many keys are remembered: those being limited, and some whose bucket filled up lately."""
        return len(self._full_at)

    def try_acquire(self, key: Hashable, n: int = 1) -> bool:
        """Take n tokens of this key now, or none.

        Returns:
            Whether they were taken. 0 tokens always are. A new key that finds no room is answered by `when_full`.

        Raises:
            BurstExceededError: n is more than a bucket ever holds.
            InvalidTokensError: n is negative or not whole.
        """
        cost = self._token if n == 1 else self._cost(n)
        if not cost:
            return True
        key = self._key(key)
        if self._waited_for and (bucket := self._waited_for.get(key)):
            return bucket.try_acquire(n)
        now = self._now() * self._per_ns
        known = self._full_at.get(key)
        full_at = cost + (now if known is None or known < now else known)
        if full_at - now > self._capacity:
            return False
        if known is None:
            if not self._make_room(now):
                return self.when_full == "admit" or (self.when_full == "share" and self._overflow.try_acquire(n))
            heapq.heappush(self._heap, (full_at, next(self._numbers), key))
        self._full_at[key] = full_at
        return True

    def wait_time(self, key: Hashable, n: int = 1) -> float:
        """Seconds until `try_acquire(key, n)` would say True, if nobody else took tokens of this key.

        Returns:
            0.0 when it would now; `math.inf` when it never would, at rate 0.

        Raises:
            BurstExceededError: n is more than a bucket ever holds.
            InvalidTokensError: n is negative or not whole.
        """
        cost = self._cost(n)
        key = self._key(key)
        if not cost:
            return 0.0
        if bucket := self._waited_for.get(key):
            return bucket.wait_time(n)
        now = self._now() * self._per_ns
        known = self._full_at.get(key)
        if known is None and not self._make_room(now):
            if self.when_full == "admit":
                return 0.0
            if self.when_full == "share":
                return self._overflow.wait_time(n)
            return seconds(self._heap[0][0] - now, self._per_ns)
        return seconds(max(known or now, now) + cost - self._capacity - now, self._per_ns)

    async def acquire(self, key: Hashable, n: int = 1) -> None:
        """Take n tokens of this key, waiting for them in turn as in `TokenBucket.acquire`.

        Raises:
            TooManyKeysError: The key is new, the table is full and `when_full` is `"refuse"`.
            QueueFullError: `max_waiters` callers wait already; nothing was charged.
            BurstExceededError: n is more than a bucket ever holds.
            InvalidTokensError: n is negative or not whole.
        """
        await checkpoint_if_cancelled()
        if not self.try_acquire(key, n):
            await self._wait_for(self._key(key), n)

    def forget_full(self) -> int:
        """Forget every key whose bucket is full, and say how many keys are left. New keys do this bit by bit."""
        self._forget(self._now() * self._per_ns, len(self._heap))
        return self.key_count

    def reconfigure(self, rate: Number | Rate, burst: Number | None = None) -> None:
        """Go on with another rate and burst, given as to the constructor; costs a pass over all keys.

        Each key keeps its tokens, as far as the new burst holds them, and whoever waits keeps its place.

        Raises:
            InvalidRateError: A number is out of its range; nothing was changed.
        """
        new = Rate.of(rate, burst)
        units = Units.of(new, Fraction(1, self._token))  # whole for whatever was whole before
        now_ns = self._now()
        now, then = now_ns * self._per_ns, now_ns * units.per_ns
        finer = units.token // self._token
        larger = units.capacity - self._capacity * finer

        def missing(full_at: int) -> int:
            return max(max(full_at - now, 0) * finer + larger, 0)

        for key, bucket in self._waited_for.items():
            self._full_at[key] = bucket._full_at  # noqa: SLF001 - a bucket of this package
            bucket._adopt(new, units, missing(bucket._full_at))  # noqa: SLF001 - as above
        self._full_at = {key: then + missing(full_at) for key, full_at in self._full_at.items()}
        self._heap = [(full_at, next(self._numbers), key) for key, full_at in self._full_at.items()]
        heapq.heapify(self._heap)
        self._overflow.reconfigure(new)
        self._rate, self._units = new, units
        self._per_ns, self._token, self._capacity = units

    def _cost(self, n: int) -> int:
        cost = checked(n) * self._token
        if cost > self._capacity:
            raise BurstExceededError(n, self._rate.burst)
        return cost

    def _make_room(self, now: int) -> bool:
        """Forget some full buckets; whether there is room for a key more."""
        self._forget(now, FORGET_PER_NEW_KEY)
        while len(self._full_at) >= self.max_keys and self._heap[0][0] <= now:
            self._forget(now, 1)
        return len(self._full_at) < self.max_keys

    def _forget(self, now: int, at_most: int) -> None:
        heap, full_at = self._heap, self._full_at
        for _ in range(at_most):
            if not heap or heap[0][0] > now:
                break
            key = heap[0][2]
            if key in self._waited_for:
                full_at[key] = self._waited_for[key]._full_at  # noqa: SLF001 - as above
            if full_at[key] <= now:
                del full_at[key]
                heapq.heappop(heap)
            else:
                heapq.heapreplace(heap, (full_at[key], next(self._numbers), key))

    async def _wait_for(self, key: Hashable, n: int) -> None:
        """Wait in turn for tokens that are not there yet."""
        if self._waiters == self._max_waiters:
            raise QueueFullError(self._waiters)
        bucket = self._bucket_to_wait_for(key)
        self._waiters += 1
        try:
            await bucket._wait_for(n)  # noqa: SLF001 - a bucket of this package
        finally:
            self._waiters -= 1
            self._settle(key)

    def _bucket_to_wait_for(self, key: Hashable) -> TokenBucket:
        """The bucket with a queue of a key whose tokens are not there yet."""
        if bucket := self._waited_for.get(key):
            return bucket
        if key not in self._full_at:
            if self.when_full == "refuse":
                raise TooManyKeysError(self.max_keys)
            return self._overflow
        bucket = TokenBucket(self._rate, None, self._clock, max_waiters=None)
        bucket._set_units(self._units)  # noqa: SLF001 - as above
        bucket._full_at = self._full_at[key]  # noqa: SLF001 - as above
        self._waited_for[key] = bucket
        return bucket

    def _untake(self, key: Hashable, n: int, full_at: int | None = None) -> None:
        """Give back tokens taken when the key's moment became `full_at`, as far as time has not refilled them since.

        Without `full_at` they were taken this very moment.
        """
        cost, key, now = n * self._token, self._key(key), self._now() * self._per_ns
        returned = cost if full_at is None else min(cost, max(full_at - now, 0))
        if bucket := self._waited_for.get(key) or (None if key in self._full_at else self._overflow):
            bucket._return(returned)  # noqa: SLF001 - as above
        else:
            self._full_at[key] -= returned

    async def _hold(self, key: Hashable, n: int) -> Callable[[], None]:
        """Take n tokens in turn, and return how to give them back."""
        await self.acquire(key, n)
        return partial(self._untake, key, n, self._full_at.get(self._key(key)))

    def _settle(self, key: Hashable) -> None:
        """Back to one number, once nobody waits for this key any more."""
        bucket = self._waited_for.get(key)
        if bucket and not bucket.waiters:
            self._full_at[key] = bucket._full_at  # noqa: SLF001 - as above
            del self._waited_for[key]
