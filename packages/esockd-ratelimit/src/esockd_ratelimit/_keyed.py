"""A bucket a key, such as the address of a peer, kept as one number.

A key costs one entry of a dict: the moment at which its bucket is full again, in the units of `_units`. A full bucket
is as good as no bucket. Only keys whose moment has passed are therefore forgotten, and a flood of new keys cannot push
out a limited one. A heap orders the keys by a moment that was theirs once. Moments only move ahead: a key whose old
moment has not come cannot be full yet, and any other is put back with its present moment.
"""

from __future__ import annotations

import heapq
import itertools
import socket
import time
from copy import copy
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, Self

from anyio.lowlevel import checkpoint_if_cancelled

from ._bucket import MAX_WAITERS, TokenBucket
from ._cancellation import may_be_cancelled
from ._checks import check_choice, check_count
from ._clock import Clock, forward_only
from ._errors import BurstExceeded, QueueFull, TooManyKeys
from ._held import Hold, Holds
from ._rate import Rate
from ._units import Units, checked, seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from ._rate import Number, RateLike
    from ._waiters import Claim

MAX_KEYS: Final = 65_536
FORGET_PER_NEW_KEY: Final = 8  # more go than come, so that the table shrinks and no new key pays for a whole sweep
SHARED: Final = object()  # the place of the bucket that new keys share while the table is full
MAPPED_PREFIX: Final = bytes(10) + b"\xff\xff"  # RFC 4291, 2.5.5.2: IPv4-mapped IPv6 addresses

WhenFull = Literal["refuse", "admit", "share"]


def source_key(key: Hashable) -> Hashable:
    """The key that limits a source: an IPv4 address, the /64 of an IPv6 address, or the IPv4 address of a mapped one.

    One subscriber gets at least a /64 (RFC 6177), so that its addresses count as one source. Any other key counts as
    it is.
    """
    if not isinstance(key, str) or ":" not in key:
        return key
    try:
        packed = socket.inet_pton(socket.AF_INET6, key.partition("%")[0])
    except (OSError, ValueError):  # a ValueError where there is a NUL or a lone surrogate in it
        return key
    return socket.inet_ntop(socket.AF_INET, packed[12:]) if packed.startswith(MAPPED_PREFIX) else packed[:8]


class KeyedTokenBucket:
    """A `TokenBucket` a key, all with the same rate and burst.

    Args:
        rate: Tokens a second for each key: a number, text such as `5/min`, or a `Rate`.
        burst: The most tokens of one key, at least 1. By default one second's worth and at least 1.
        clock: Gives nanoseconds.
        max_keys: How many keys may be limited at once: a hard bound on memory.
        when_full: What happens to a new key while that many others are being limited: `"refuse"` it, `"admit"` it
            without a limit, or let all such keys `"share"` one more bucket.
        key: Maps the key of a call to the key that is limited. By default an IPv6 address maps to its /64.
        max_waiters: How many callers may wait in `acquire` at once, over all keys; None for no bound.

    Raises:
        InvalidRate: If the rate or the burst is not valid.
        InvalidOption: If another number is out of range, the policy is unknown, or the clock does not give whole
            nanoseconds.
    """

    def __init__(
        self,
        rate: RateLike,
        burst: Number | None = None,
        clock: Clock = time.monotonic_ns,
        *,
        max_keys: int = MAX_KEYS,
        when_full: WhenFull = "refuse",
        key: Callable[[Hashable], Hashable] = source_key,
        max_waiters: int | None = MAX_WAITERS,
    ) -> None:
        check_count(max_keys, "max_keys", 1)
        check_count(max_waiters, "max_waiters", 0, optional=True)
        check_choice(when_full, "when_full", ("refuse", "admit", "share"))
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
        self._waited_for: dict[Hashable, TokenBucket] = {}  # a key that somebody waits for has a bucket with a queue
        self._overflow = TokenBucket(self._rate, None, clock, max_waiters=max_waiters)
        self._holds = Holds()

    @property
    def rate(self) -> Rate:
        """Tokens a second and burst of each key."""
        return self._rate

    @property
    def key_count(self) -> int:
        """How many keys are remembered, which are those being limited, and some whose bucket has filled up since."""
        return len(self._full_at)

    def try_acquire(self, key: Hashable, n: int = 1) -> bool:
        """Take n tokens of this key now, or none.

        Returns:
            Whether they were taken; 0 tokens always are. `when_full` decides about a new key that finds no room.

        Raises:
            BurstExceeded: If n is more than a bucket ever holds.
            InvalidTokens: If n is negative or not whole.
        """
        cost = self._token if n == 1 else self._cost(n)
        if not cost:
            return True
        if type(key) is not str or ":" in key or self._key is not source_key:  # an IPv4 address stands for itself
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
        """Seconds until `try_acquire(key, n)` would return True if nobody else took tokens of this key.

        Returns:
            0.0 if it would now, and `math.inf` if it never would, at rate 0.

        Raises:
            BurstExceeded: If n is more than a bucket ever holds.
            InvalidTokens: If n is negative or not whole.
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
            TooManyKeys: If the key is new, the table is full and `when_full` is `"refuse"`.
            QueueFull: If `max_waiters` callers already wait; nothing was charged.
            BurstExceeded: If n is more than a bucket ever holds.
            InvalidTokens: If n is negative or not whole.
        """
        if may_be_cancelled():
            await checkpoint_if_cancelled()
        if not self.try_acquire(key, n):
            await self._wait_for(self._key(key), n)

    def forget_full(self) -> int:
        """Forget every key whose bucket is full; return how many are left. New keys do this bit by bit."""
        self._forget(self._now() * self._per_ns, len(self._heap))
        return self.key_count

    def reconfigure(self, rate: RateLike, burst: Number | None = None) -> None:
        """Go on with another rate and burst, given as for the constructor; this visits every key.

        Each key keeps its tokens, as far as the new burst holds them, and waiting callers keep their places.

        Raises:
            InvalidRate: If the rate or the burst is not valid; nothing was changed.
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

    def __copy__(self) -> Self:
        """Buckets with the same rate, clock and tokens, in which nobody waits; this visits every key."""
        buckets = type(self).__new__(type(self))
        waited_for = {key: bucket._full_at for key, bucket in self._waited_for.items()}  # noqa: SLF001 - as above
        vars(buckets).update(vars(self), _full_at=self._full_at | waited_for, _heap=[*self._heap])
        vars(buckets).update(_waiters=0, _waited_for={}, _overflow=copy(self._overflow))
        return buckets

    def _cost(self, n: int) -> int:
        cost = checked(n) * self._token
        if cost > self._capacity:
            raise BurstExceeded(n, self._rate.burst)
        return cost

    def _make_room(self, now: int) -> bool:
        """Forget some full buckets; return whether there is room for another key."""
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
            if bucket := self._waited_for.get(key):  # whoever waits may not have run yet, though the bucket is full
                full_at[key] = max(bucket._full_at, now + 1)  # noqa: SLF001 - as above
            if full_at[key] <= now:
                del full_at[key]
                heapq.heappop(heap)
            else:
                heapq.heapreplace(heap, (full_at[key], next(self._numbers), key))

    async def _wait_for(self, key: Hashable, n: int) -> Claim:
        """Wait in turn for tokens that are not there yet."""
        if self._waiters == self._max_waiters:
            raise QueueFull(self._waiters)
        bucket = self._bucket_to_wait_for(key)
        self._waiters += 1
        try:
            return await bucket._wait_for(n)  # noqa: SLF001 - a bucket of this package
        finally:
            self._waiters -= 1
            self._settle(key)

    def _bucket_to_wait_for(self, key: Hashable) -> TokenBucket:
        """The bucket with a queue of a key whose tokens are not there yet."""
        if bucket := self._waited_for.get(key):
            return bucket
        if key not in self._full_at:
            if self.when_full == "refuse":
                raise TooManyKeys(self.max_keys)
            return self._overflow
        bucket = TokenBucket(self._rate, None, self._clock, max_waiters=None)
        bucket._set_units(self._units)  # noqa: SLF001 - as above
        bucket._full_at = self._full_at[key]  # noqa: SLF001 - as above
        self._waited_for[key] = bucket
        return bucket

    def _holder(self, key: Hashable) -> TokenBucket | None:
        """The bucket that a key takes from, waited for or shared; None if its tokens are a number of the table."""
        return self._waited_for.get(key) or (None if key in self._full_at else self._overflow)

    def _untake(self, key: Hashable, n: int) -> None:
        """Give back tokens that were taken just now."""
        key = self._key(key)
        if bucket := self._holder(key):
            bucket._return(n * self._token)  # noqa: SLF001 - as above
        else:
            self._full_at[key] -= n * self._token

    async def _hold(self, key: Hashable, n: int) -> Callable[[bool], None]:
        """Take n tokens in turn; return a function that lets go of them, and is told whether to give them back."""
        own = self._key(key)
        if self.try_acquire(key, n):
            bucket = self._holder(own)
            full_at = bucket._full_at if bucket else self._full_at[own]  # noqa: SLF001 - as above
        else:
            full_at = (await self._wait_for(own, n)).full_at or 0
        hold = Hold(n * self._token, full_at, self._units)
        place = own if own in self._full_at else SHARED
        self._holds.add(place, hold)
        return partial(self._let_go, place, hold)

    def _let_go(self, place: Hashable, hold: Hold, gives_back: bool) -> None:
        if not gives_back or hold.units is not self._units:  # after `reconfigure` nothing can be said
            self._holds.remove(place, hold)
            return
        returned = self._holds.give_back(place, hold, self._now() * self._per_ns)
        if not returned:
            return
        if bucket := self._overflow if place is SHARED else self._waited_for.get(place):
            bucket._return(returned)  # noqa: SLF001 - as above
        else:
            self._full_at[place] -= returned

    def _settle(self, key: Hashable) -> None:
        """Go back to one number once nobody waits for this key any more."""
        bucket = self._waited_for.get(key)
        if bucket and not bucket.waiters:
            self._full_at[key] = bucket._full_at  # noqa: SLF001 - as above
            del self._waited_for[key]
