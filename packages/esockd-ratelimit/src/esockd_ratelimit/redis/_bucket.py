"""One token bucket on the server; leases make trips to it rare."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from fractions import Fraction
from typing import TYPE_CHECKING, Self

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

from esockd_ratelimit._bucket import MAX_WAITERS, TokenBucket
from esockd_ratelimit._checks import check_count
from esockd_ratelimit._errors import BurstExceeded, InvalidOption, RateLimitError
from esockd_ratelimit._units import checked

from ._server import MAX_SLEEP_S, PAUSE_S, Call
from ._shared import SharedBucket

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    import redis

    from esockd_ratelimit._rate import Number, RateLike

    from ._server import ServerAway, WhenAway


class NotEntered(RateLimitError):
    """`try_acquire` was called outside `async with`, where nothing keeps tokens in stock."""


class RedisTokenBucket(SharedBucket):
    """A token bucket kept by a Redis (5 or newer) or Valkey server.

    With `lease=1` it asks the server for every token: within any t seconds, all who share the bucket together take at
    most `burst + rate * t`. With a larger lease a process takes that many tokens at once and spends them without the
    server. It may spend them later, so that the bound grows by `lease` for each process.

    `take` and `acquire` need nothing but the event loop. `try_acquire`, which listeners call, cannot wait for a server:
    it spends leased tokens only. The bucket keeps them in stock inside `async with RedisTokenBucket(...) as bucket`,
    and gives the rest back at the end.

    Args:
        server: A URL as redis-py takes it (`redis://host:port/0`, `rediss://`, `unix:///path`), or a `redis.Redis`,
            whose own timeouts then count instead of `timeout`.
        name: The name of the bucket; its Redis key is `esockd:ratelimit:NAME`.
        rate: Tokens a second, the same for all who share the bucket.
        burst: The most tokens the bucket holds, at least 1.
        lease: Tokens to take at once, from 1 up to the burst.
        when_away: While the server is away: `"open"` grants everything, `"closed"` nothing, `"local"` limits this
            process by a bucket of its own, which has its share of the rate and burst; see `processes`.
        timeout: Seconds to wait for a connection and for an answer.
        retry_interval: Seconds after a failure until the server is asked again.
        max_waiters: How many callers may wait in `acquire` at once; None for no bound.
        processes: How many processes share the bucket. While the server is away, `"local"` grants each this part of
            rate and burst, and one token at the least.
        on_change: Called with the reason when the server goes away, and with None when it is back.

    Raises:
        InvalidRate: If the rate or the burst is not valid, or needs numbers above 2**53 in the script.
        InvalidOption: If another argument is not valid.
    """

    def __init__(
        self,
        server: str | redis.Redis,
        name: str,
        rate: RateLike,
        burst: Number | None = None,
        *,
        lease: int = 1,
        when_away: WhenAway = "closed",
        timeout: float = 0.25,
        retry_interval: float = 1.0,
        max_waiters: int | None = MAX_WAITERS,
        processes: int = 1,
        on_change: Callable[[ServerAway | None], None] | None = None,
    ) -> None:
        super().__init__(
            server,
            name,
            rate,
            burst,
            when_away=when_away,
            timeout=timeout,
            retry_interval=retry_interval,
            max_waiters=max_waiters,
            processes=processes,
            on_change=on_change,
        )
        check_count(lease, "lease", 1)
        if lease > self._rate.burst:
            reason = f"it takes at most the burst, which is {float(self._rate.burst):g}"
            raise InvalidOption(reason, option="lease", value=lease)
        self.lease = lease
        self._retry_interval = retry_interval
        self._key = name.encode()
        self._local = TokenBucket(self._local_rate)
        self._leased = 0
        self._refused_until_s = 0.0
        self._queue = anyio.Lock()  # held by the caller of acquire whose turn it is
        self._is_waited_for = False  # that caller found no tokens and sleeps
        self._trip = anyio.Lock()  # held during one trip to the server
        self._low: anyio.Event | None = None  # set when the stock is low; None while nobody keeps stock
        self._running = AsyncExitStack()

    @property
    def leased(self) -> int:
        """Tokens taken from the server and not spent yet."""
        return self._leased

    def try_acquire(self, n: int = 1) -> bool:
        """Take n leased tokens now, or none, without a trip to the server. Works only inside `async with`.

        Returns:
            Whether they were taken; while the server is away, the answer of `when_away`.

        Raises:
            BurstExceeded: If n is more than the lease.
            InvalidTokens: If n is negative or not whole.
            NotEntered: If nothing keeps tokens in stock.
        """
        if self._low is None:
            raise NotEntered("try_acquire spends tokens kept in stock: use the bucket in `async with bucket:`")
        if checked(n) > self.lease:
            raise BurstExceeded(n, Fraction(self.lease))
        return self._spend(n) or (self.away is not None and self._answer_alone(n))

    def wait_time(self, n: int = 1) -> float:
        """Seconds until n tokens may be there, as far as this process knows: others may come first.

        Where stock is kept, it is 0.0 only if `try_acquire` would return True now.

        Raises:
            BurstExceeded: If n is more than the bucket ever holds.
            InvalidTokens: If n is negative or not whole.
        """
        self._check(n)
        if n <= self._leased or (self.away and self.when_away == "open"):
            return 0.0
        least_s = 0.0 if self._low is None else PAUSE_S  # a trip for more is on its way
        if not self.away:
            return max(self._refused_until_s - time.monotonic(), least_s)
        if self.when_away == "local" and n <= self._local_rate.burst:
            return self._local.wait_time(n)
        return max(self._server.retry_in_s, least_s)

    async def take(self, n: int = 1) -> bool:
        """Take n tokens now, or none: from the lease, or by asking the server once.

        Returns:
            Whether they were taken; while the server is away, the answer of `when_away`. Nobody overtakes a caller
            of this process that waits in `acquire`.

        Raises:
            BurstExceeded: If n is more than the bucket ever holds.
            InvalidTokens: If n is negative or not whole.
        """
        self._check(n)
        await checkpoint_if_cancelled()
        if self._is_waited_for and n:
            return False
        return self._spend(n) or await self._ask(n) == 0.0

    async def acquire(self, n: int = 1) -> None:
        """Take n tokens, waiting in turn within this process, though not among several.

        While the server is away, `"open"` lets everybody go on, `"local"` waits for the bucket of this process, and
        `"closed"` waits until the server is back.

        Raises:
            QueueFull: If `max_waiters` callers already wait; nothing was charged.
            BurstExceeded: If n is more than the bucket ever holds.
            InvalidTokens: If n is negative or not whole.
        """
        self._check(n)
        await checkpoint_if_cancelled()
        if not self._queue.locked() and self._spend(n):
            return
        with self._waiting():
            async with self._queue:
                await self._sleep_until_taken(n)

    async def __aenter__(self) -> Self:
        """Take a first lease, and keep tokens in stock from now on."""
        async with AsyncExitStack() as stack:
            tasks = await stack.enter_async_context(anyio.create_task_group())
            stack.callback(tasks.cancel_scope.cancel)
            self._low = anyio.Event()
            await self._restock()
            self._spend(0)  # its keeper goes on if that was not enough
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
        """Give the rest of the lease back if the server answers, and close the connection this bucket opened."""
        async with self._trip:
            leftover, self._leased = self._leased, 0
            if leftover and not self.away:
                await self._server.run([Call(self._key, -leftover, -leftover)])
        await self._server.aclose()

    def _spend(self, n: int) -> bool:
        """Take n tokens of the lease, or none; tell the keeper when the stock is low."""
        granted = n <= self._leased
        if granted:
            self._leased -= n
        if self._low is not None and self._leased * 2 <= self.lease:
            self._low.set()
        return granted

    def _answer_alone(self, n: int) -> bool:
        """Answer without the server."""
        if self.when_away != "local":
            return self.when_away == "open"
        return n <= self._local_rate.burst and self._local.try_acquire(n)

    async def _ask(self, n: int) -> float:
        """Take n tokens and return 0.0, or return the seconds until it is worth asking again."""
        while not self._spend(n):
            async with self._trip:
                if self._spend(n):  # another trip brought enough
                    return 0.0
                missing = n - self._leased
                wait_s = await self._fetch(missing, missing + self.lease - 1)
            if wait_s is None:
                return 0.0 if self._answer_alone(n) else max(min(self.wait_time(n), self._retry_interval), PAUSE_S)
            if wait_s:
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
        """Add tokens to the lease and return 0.0, or the seconds until they are there; None without a server."""
        answers = await self._server.run([Call(self._key, least, most)])
        if answers is None:
            return None
        taken, wait_s = answers[0]
        self._leased += taken
        self._refused_until_s = time.monotonic() + wait_s
        return wait_s

    async def _restock(self) -> float:
        """Fill the stock as far as the server allows; return the seconds to pause before the next attempt."""
        async with self._trip:
            wait_s = await self._fetch(1, self.lease - self._leased) if self._leased < self.lease else 0.0
        if wait_s is None:
            return max(self._server.retry_in_s, PAUSE_S)
        return min(max(wait_s, PAUSE_S), MAX_SLEEP_S) if wait_s else 0.0

    async def _keep_stock(self, low: anyio.Event) -> None:
        while True:
            await low.wait()
            pause_s = await self._restock()
            await anyio.sleep(pause_s)
            if self._leased * 2 > self.lease:
                low = self._low = anyio.Event()
