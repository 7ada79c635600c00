"""A bucket a key on the server, such as one for each user, all over one connection."""

from __future__ import annotations

import hashlib
import math
from itertools import islice
from typing import TYPE_CHECKING, Final

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

from esockd_ratelimit._bucket import MAX_WAITERS
from esockd_ratelimit._errors import InvalidOption
from esockd_ratelimit._keyed import KeyedTokenBucket, source_key

from ._server import MAX_SLEEP_S, PAUSE_S, Answer, Call
from ._shared import SharedBucket

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    import redis

    from esockd_ratelimit._rate import Number, RateLike

    from ._server import ServerAway, WhenAway

CALLS_A_TRIP: Final = 128
LONGEST_KEY_BYTES: Final = 128
HASHED: Final = b"blake2b:"


class Request:
    """A caller's request for tokens.

    Attributes:
        call: What the server is to run.
        is_waited_for: Whether a caller still wants the answer.
        is_answered: Whether the trip is over.
        answer: What the server said; None when it was away.
    """

    __slots__ = ("answer", "call", "is_answered", "is_waited_for")

    def __init__(self, key: bytes, n: int) -> None:
        self.call = Call(key, n, n)
        self.is_waited_for = n > 0
        self.is_answered = False
        self.answer: Answer | None = None


class Queue:
    """The callers of this process that wait for one key.

    Attributes:
        turn: The lock that the first of them holds.
        length: How many there are.
    """

    __slots__ = ("length", "turn")

    def __init__(self) -> None:
        self.turn = anyio.Lock()
        self.length = 0


class KeyedRedisTokenBucket(SharedBucket):
    """A bucket a key, all with the same rate and burst, kept by a Redis (5 or newer) or Valkey server.

    It asks the server for every token: within any t seconds, all who share the buckets together take at most
    `burst + rate * t` tokens of a key. What is asked for while a trip to the server is under way goes together in the
    next one, so that one connection serves all keys.

    Args:
        server: A URL as redis-py takes it (`redis://host:port/0`, `rediss://`, `unix:///path`), or a `redis.Redis`,
            whose own timeouts then count instead of `timeout`.
        name: The name of the buckets; the Redis key of one is `esockd:ratelimit:NAME:KEY`.
        rate: Tokens a second for each key, the same for all who share the buckets.
        burst: The most tokens of one key, at least 1.
        when_away: While the server is away: `"open"` grants everything, `"closed"` nothing, `"local"` limits this
            process by buckets of its own, which have its share of the rate and burst; see `processes`.
        timeout: Seconds to wait for a connection and for an answer.
        retry_interval: Seconds after a failure until the server is asked again.
        key: Maps the key of a call to the key that is limited: text, bytes or a whole number. By default an IPv6
            address maps to its /64.
        max_waiters: How many callers may wait in `acquire` at once, over all keys; None for no bound.
        processes: How many processes share the buckets. While the server is away, `"local"` grants each this part of
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
        when_away: WhenAway = "closed",
        timeout: float = 0.25,
        retry_interval: float = 1.0,
        key: Callable[[Hashable], Hashable] = source_key,
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
        self._key = key
        self._local = KeyedTokenBucket(self._local_rate, key=lambda key: key)
        self._asked: dict[Request, None] = {}  # in their order; removed once answered, or when nobody waits any more
        self._trip = anyio.Lock()
        self._queues: dict[bytes, Queue] = {}

    async def take(self, key: Hashable, n: int = 1) -> bool:
        """Take n tokens of this key now, or none.

        Returns:
            Whether they were taken; while the server is away, the answer of `when_away`. Nobody overtakes a caller
            of this process that waits in `acquire` for the same key.

        Raises:
            BurstExceeded: If n is more than a bucket ever holds.
            InvalidTokens: If n is negative or not whole.
            InvalidOption: If the key is not text, bytes or a whole number.
        """
        name = self._checked(key, n)
        await checkpoint_if_cancelled()
        return not n or (name not in self._queues and await self._ask(name, n) == 0.0)

    async def acquire(self, key: Hashable, n: int = 1) -> None:
        """Take n tokens of this key, waiting in turn within this process, though not among several.

        While the server is away, `"open"` lets everybody go on, `"local"` waits for the bucket of this process, and
        `"closed"` waits until the server is back.

        Raises:
            QueueFull: If `max_waiters` callers already wait; nothing was charged.
            BurstExceeded: If n is more than a bucket ever holds.
            InvalidTokens: If n is negative or not whole.
            InvalidOption: If the key is not text, bytes or a whole number.
        """
        name = self._checked(key, n)
        await checkpoint_if_cancelled()
        if not n or (name not in self._queues and await self._ask(name, n) == 0.0):
            return
        with self._waiting():
            queue = self._queues.setdefault(name, Queue())
            queue.length += 1
            try:
                async with queue.turn:
                    while wait_s := await self._ask(name, n):  # noqa: ASYNC110 - the server tells nobody
                        await anyio.sleep(min(wait_s, MAX_SLEEP_S))
            finally:
                queue.length -= 1
                if not queue.length:
                    del self._queues[name]

    async def aclose(self) -> None:
        """Give back what cancelled callers had been granted, and close the connection that this object opened."""
        async with self._trip:
            if self._asked:
                await self._go()
        await self._server.aclose()

    def _checked(self, key: Hashable, n: int) -> bytes:
        """The name of the bucket on the server."""
        self._check(n)
        mapped = self._key(key)
        if not isinstance(mapped, str | bytes | int):
            raise InvalidOption("it takes text, bytes or a whole number", option="key", value=mapped)
        name = mapped if isinstance(mapped, bytes) else str(mapped).encode("utf-8", "surrogatepass")
        if len(name) > LONGEST_KEY_BYTES or name.startswith(HASHED):
            name = HASHED + hashlib.blake2b(name, digest_size=16).hexdigest().encode()
        return self.name.encode() + b":" + name

    async def _ask(self, name: bytes, n: int) -> float:
        """Take n tokens and return 0.0, or return the seconds until it is worth asking again."""
        request = Request(name, n)
        self._asked[request] = None
        try:
            async with self._trip:
                while not request.is_answered:  # otherwise the trip of an earlier caller took it along
                    await self._go()
        except BaseException:
            request.is_waited_for = False
            self._asked.pop(request, None)
            self._give_back(request)
            raise
        if request.answer is None:
            return self._answer_alone(name, n)
        return request.answer.wait_s

    async def _go(self) -> None:
        """Make one trip with the requests, oldest first."""
        requests = list(islice(self._asked, CALLS_A_TRIP))
        answers = await self._server.run([request.call for request in requests])
        for at, request in enumerate(requests):
            self._asked.pop(request, None)
            request.answer = answers[at] if answers is not None else None
            request.is_answered = True
            if not request.is_waited_for:
                self._give_back(request)

    def _give_back(self, request: Request) -> None:
        """Send tokens that nobody waits for any more along with the next trip."""
        if request.answer is not None and request.answer.taken > 0:
            self._asked[Request(request.call.key, -request.answer.taken)] = None

    def _answer_alone(self, name: bytes, n: int) -> float:
        """Answer without the server: 0.0 grants n tokens; otherwise seconds until it is worth asking again."""
        if self.when_away == "open":
            return 0.0
        wait_s = math.inf
        if self.when_away == "local" and n <= self._local_rate.burst:
            if self._local.try_acquire(name, n):
                return 0.0
            wait_s = self._local.wait_time(name, n)
        return max(min(wait_s, self._server.retry_in_s), PAUSE_S)
