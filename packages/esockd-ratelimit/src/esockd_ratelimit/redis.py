"""One token bucket shared by processes and machines through a Redis or Valkey server.

The server keeps the bucket and its own time decides, so the clocks of those who share it don't matter. One atomic
script refills and takes. The client is redis-py's blocking one on a worker thread, so that asyncio, uvloop and trio
have the same behaviour (redis-py's own asyncio client does not run on trio); leases make its cost rare.
"""

from __future__ import annotations

import math
import time
from contextlib import AsyncExitStack
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, Self

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

try:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry
except ImportError as _missing:
    raise ImportError("the shared bucket needs redis-py: pip install 'esockd-ratelimit[redis]'") from _missing

from ._bucket import MAX_WAITERS, TokenBucket
from ._errors import BurstExceededError, InvalidRateError, QueueFullError, RateLimitError
from ._rate import Rate
from ._redis_script import SCRIPT, US_PER_S, script_units
from ._units import checked

if TYPE_CHECKING:
    from types import TracebackType

    from ._rate import Number

__all__ = ["RedisTokenBucket", "ServerAwayError", "WhenAway"]

WhenAway = Literal["open", "closed", "local"]

MAX_SLEEP_S: Final = 60.0  # then ask anew: others may have given tokens back
PAUSE_S: Final = 0.01  # at least, after a refusal without the server or of more stock
PREFIX: Final = "esockd:ratelimit:"


class ServerAwayError(RateLimitError):
    """The server did not answer in time, or not at all. Kept in `RedisTokenBucket.away`, never raised."""


class RedisTokenBucket:
    """A token bucket kept by a Redis (5 or newer) or Valkey server.

    With `lease=1` every token is asked for: within any t seconds all who share the bucket together take at most
    `burst + rate * t`. With a larger lease a process takes so many tokens at once and spends them without the server;
    what it holds may be spent later, so the bound grows by `lease` for each process.

    `take` and `acquire` need nothing but the event loop. `try_acquire`, the call of listeners, may not wait for a
    server: it spends leased tokens only, which are kept in stock while the bucket is used as
    `async with RedisTokenBucket(...) as bucket`; leaving that gives the rest back.

    Args:
        server: URL as redis-py takes it (`redis://host:port/0`, `rediss://`, `unix:///path`), or a `redis.Redis`
            whose own timeouts then count instead of `timeout_s`.
        name: Of the bucket; the key is `esockd:ratelimit:NAME`.
        rate: Tokens a second, the same for all who share the bucket.
        burst: The most tokens the bucket holds, at least 1.
        lease: Tokens to take at once, from 1 up to the burst.
        when_away: While the server is away: `"open"` grants everything, `"closed"` nothing, `"local"` limits this
            process by a bucket of its own with the same rate and burst.
        timeout_s: Seconds to wait for a connection and for an answer.
        retry_s: Seconds after a failure until the server is asked again.
        max_waiters: How many may wait in `acquire` at once; None for no bound.

    Raises:
        InvalidRateError: A number is out of its range, or rate and burst need numbers above 2**53 in the script.
    """

    def __init__(
        self,
        server: str | redis.Redis,
        name: str,
        rate: Number | Rate,
        burst: Number | None = None,
        *,
        lease: int = 1,
        when_away: WhenAway = "closed",
        timeout_s: float = 0.25,
        retry_s: float = 1.0,
        max_waiters: int | None = MAX_WAITERS,
    ) -> None:
        self._rate = Rate.of(rate, burst)
        if not 1 <= lease <= self._rate.burst:
            raise InvalidRateError(f"a lease must be from 1 up to the burst, {self._rate.burst}, not {lease!r}")
        if when_away not in ("open", "closed", "local"):
            raise InvalidRateError(f'when_away must be "open", "closed" or "local", not {when_away!r}')
        if timeout_s <= 0 or retry_s <= 0:
            raise InvalidRateError(f"timeout_s and retry_s must be above 0, not {timeout_s!r} and {retry_s!r}")
        self.name = name
        self.lease = lease
        self.when_away: WhenAway = when_away
        self._units = script_units(self._rate)
        self._retry_s = retry_s
        self._max_waiters = max_waiters
        self._waiters = 0
        client = connect(server, timeout_s) if isinstance(server, str) else server
        self._owned_client = None if client is server else client
        self._script = client.register_script(SCRIPT)
        self._local = TokenBucket(self._rate, max_waiters=max_waiters)
        self._leased = 0
        self._refused_until_s = 0.0
        self._away: ServerAwayError | None = None
        self._away_until_s = 0.0
        self._queue = anyio.Lock()  # held by the caller of acquire whose turn it is
        self._is_waited_for = False  # that caller found no tokens and sleeps
        self._trip = anyio.Lock()  # held during one trip to the server
        self._thread = anyio.CapacityLimiter(1)  # own, so that neither starves nor is starved by the program's threads
        self._low: anyio.Event | None = None  # set when the stock is low; None while nobody keeps stock
        self._running = AsyncExitStack()

    @property
    def rate(self) -> Rate:
        """Tokens a second, and the burst."""
        return self._rate

    @property
    def leased(self) -> int:
        """Tokens taken from the server and not spent yet."""
        return self._leased

    @property
    def waiters(self) -> int:
        """How many callers wait in `acquire`."""
        return self._waiters

    @property
    def away(self) -> ServerAwayError | None:
        """Why the server is taken to be away, or None while it answers."""
        return self._away

    def try_acquire(self, n: int = 1) -> bool:
        """Take n leased tokens now, or none; no trip to the server. Only inside `async with`.

        Returns:
            Whether they were taken; while the server is away, what `when_away` says.

        Raises:
            BurstExceededError: n is more than the lease.
            InvalidTokensError: n is negative or not whole.
            RateLimitError: The bucket is not entered, so nobody keeps tokens in stock.
        """
        if self._low is None:
            raise RateLimitError("try_acquire spends tokens kept in stock: use the bucket in `async with bucket:`")
        if checked(n) > self.lease:
            raise BurstExceededError(n, Fraction(self.lease))
        return self._spend(n) or (self._away is not None and self._answer_alone(n))

    def wait_time(self, n: int = 1) -> float:
        """Seconds until n tokens may be had, as far as is known here: others may come first.

        Raises:
            BurstExceededError: n is more than the bucket ever holds.
            InvalidTokensError: n is negative or not whole.
        """
        self._check(n)
        if n <= self._leased or (self._away and self.when_away == "open"):
            return 0.0
        if self._away:
            alone = self.when_away == "local"
            return self._local.wait_time(n) if alone else max(self._away_until_s - time.monotonic(), 0.0)
        return max(self._refused_until_s - time.monotonic(), 0.0)

    async def take(self, n: int = 1) -> bool:
        """Take n tokens now, or none: from the lease, or else by asking the server once.

        Returns:
            Whether they were taken; while the server is away, what `when_away` says. Nobody overtakes a caller of
            this process who waits in `acquire`.

        Raises:
            BurstExceededError: n is more than the bucket ever holds.
            InvalidTokensError: n is negative or not whole.
        """
        self._check(n)
        await checkpoint_if_cancelled()
        if self._is_waited_for and n:
            return False
        return self._spend(n) or await self._ask(n) == 0.0

    async def acquire(self, n: int = 1) -> None:
        """Take n tokens, waiting for them: first come, first served within this process, not among several.

        While the server is away `"open"` lets everybody go, `"local"` waits for the bucket of this process, and
        `"closed"` waits until the server is back.

        Raises:
            QueueFullError: `max_waiters` callers wait already; nothing was charged.
            BurstExceededError: n is more than the bucket ever holds.
            InvalidTokensError: n is negative or not whole.
        """
        self._check(n)
        await checkpoint_if_cancelled()
        if not self._queue.locked() and self._spend(n):
            return
        if self._waiters == self._max_waiters:
            raise QueueFullError(self._waiters)
        self._waiters += 1
        try:
            async with self._queue:
                await self._sleep_until_taken(n)
        finally:
            self._waiters -= 1

    async def __aenter__(self) -> Self:
        """Take a first lease, and keep tokens in stock from now on."""
        async with AsyncExitStack() as stack:
            tasks = await stack.enter_async_context(anyio.create_task_group())
            stack.callback(tasks.cancel_scope.cancel)
            self._low = anyio.Event()
            await self._restock()
            tasks.start_soon(self._keep_stock, self._low)
            self._running = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """Stop keeping stock, and give the rest of the lease back if the server answers."""
        try:
            return await self._running.__aexit__(kind, error, trace)
        finally:
            self._low = None
            with anyio.CancelScope(shield=True):  # bounded by the client's timeouts
                await self.aclose()

    async def aclose(self) -> None:
        """Give the rest of the lease back if the server answers, and close the connections this bucket opened."""
        async with self._trip:
            leftover, self._leased = self._leased, 0
            if leftover and not self._away:
                await self._run(-leftover, -leftover)
        if self._owned_client:
            await anyio.to_thread.run_sync(self._owned_client.close, limiter=self._thread)

    def _check(self, n: int) -> None:
        if checked(n) > self._rate.burst:
            raise BurstExceededError(n, self._rate.burst)

    def _spend(self, n: int) -> bool:
        """Take n tokens of the lease, or none; tell the keeper when the stock is low."""
        granted = n <= self._leased
        if granted:
            self._leased -= n
        if self._low is not None and self._leased * 2 <= self.lease:
            self._low.set()
        return granted

    def _answer_alone(self, n: int) -> bool:
        """What to say without the server."""
        return self.when_away == "open" or (self.when_away == "local" and self._local.try_acquire(n))

    async def _ask(self, n: int) -> float:
        """Take n tokens; 0.0 if they were there, or else seconds until it is worth asking again."""
        while not self._spend(n):
            async with self._trip:
                if self._spend(n):  # another trip brought enough
                    return 0.0
                missing = n - self._leased
                wait_s = await self._fetch(missing, missing + self.lease - 1)
            if wait_s is None:
                return 0.0 if self._answer_alone(n) else max(min(self.wait_time(n), self._retry_s), PAUSE_S)
            if wait_s:
                self._refused_until_s = time.monotonic() + wait_s
                return wait_s
        return 0.0

    async def _sleep_until_taken(self, n: int) -> None:
        try:
            while wait_s := await self._ask(n):
                self._is_waited_for = True
                await anyio.sleep(min(wait_s, MAX_SLEEP_S))
        finally:
            self._is_waited_for = False

    async def _fetch(self, least: int, most: int) -> float | None:
        """Add tokens to the lease; 0.0 if they were there, or else seconds until they are; None without a server."""
        if self._away and time.monotonic() < self._away_until_s:
            return None
        answer = await self._run(least, most)
        if answer is None:
            return None
        taken, wait_us = answer
        self._leased += taken
        return wait_us / US_PER_S if wait_us >= 0 else math.inf

    async def _run(self, least: int, most: int) -> tuple[int, int] | None:
        """One run of the script: tokens taken and microseconds to wait; None, and `away` set, when it failed."""
        call = partial(self._script, keys=[PREFIX + self.name], args=[*self._units, least, most])
        try:
            taken, wait_us = await anyio.to_thread.run_sync(call, limiter=self._thread)
        except (redis.RedisError, OSError) as error:
            self._away = ServerAwayError(f"{type(error).__name__}: {error}")
            self._away.__cause__ = error
            self._away_until_s = time.monotonic() + self._retry_s
            return None
        self._away = None
        return int(taken), int(wait_us)

    async def _restock(self) -> float:
        """Fill the stock as far as the server lets; seconds to pause before the next attempt."""
        async with self._trip:
            wait_s = await self._fetch(1, self.lease - self._leased) if self._leased < self.lease else 0.0
        if wait_s is None:
            return max(self._away_until_s - time.monotonic(), PAUSE_S)
        return min(max(wait_s, PAUSE_S), MAX_SLEEP_S) if wait_s else 0.0

    async def _keep_stock(self, low: anyio.Event) -> None:
        while True:
            await low.wait()
            pause_s = await self._restock()
            await anyio.sleep(pause_s)
            if self._leased * 2 > self.lease:
                low = self._low = anyio.Event()


def connect(url: str, timeout_s: float) -> redis.Redis:
    """A client that fails fast: within the timeout, and without trying again behind the caller's back."""
    retry = Retry(NoBackoff(), 0)
    return redis.Redis.from_url(url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=retry)
