"""The server that runs the script for the buckets of one rate, over one connection, and whether it answers."""

from __future__ import annotations

import hashlib
import math
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import anyio
import redis
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError
from redis.retry import Retry

from esockd_ratelimit._checks import check_choice, check_seconds
from esockd_ratelimit._errors import RateLimitError

from ._script import SCRIPT, US_PER_S, script_units

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from esockd_ratelimit._rate import Rate

WhenAway = Literal["open", "closed", "local"]
"""While the server is away, everything is granted, nothing is, or a bucket of this process decides."""

MAX_SLEEP_S: Final = 60.0  # then ask again: others may have given tokens back
PAUSE_S: Final = 0.01  # the least, after a refusal without the server or of more stock
PREFIX: Final = b"esockd:ratelimit:"

_SHA: Final = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()


class ServerAway(RateLimitError):
    """The server did not answer in time, or not at all. Kept in the `away` of a bucket, never raised."""


class Call(NamedTuple):
    """One run of the script.

    Attributes:
        key: Of the bucket, without the prefix.
        least: Tokens to take at least; below 0 to give some back.
        most: Tokens to take at most.
    """

    key: bytes
    least: int
    most: int


class Answer(NamedTuple):
    """What the script said.

    Attributes:
        taken: Tokens.
        wait_s: Seconds until `least` tokens are there; 0.0 if they were, infinite at rate 0.
    """

    taken: int
    wait_s: float


class BucketServer:
    """Runs the script on a thread of its own.

    Args:
        server: A URL as redis-py takes it, or a client, whose own timeouts then count.
        rate: The rate of all its buckets.
        when_away: Only checked here; the buckets answer without the server.
        timeout: Seconds to wait for a connection and for an answer.
        retry_interval: Seconds after a failure until the server is asked again.
        on_change: Called with the reason when the server goes away, and with None when it is back.

    Attributes:
        away: Why the server counts as away, or None while it answers.

    Raises:
        InvalidRate: If the rate needs numbers above 2**53 in the script.
        InvalidOption: If another argument is not valid.
    """

    def __init__(
        self,
        server: str | redis.Redis,
        rate: Rate,
        *,
        when_away: str,
        timeout: float,
        retry_interval: float,
        on_change: Callable[[ServerAway | None], None] | None = None,
    ) -> None:
        check_choice(when_away, "when_away", ("open", "closed", "local"))
        check_seconds(timeout, "timeout")
        check_seconds(retry_interval, "retry_interval")
        self.away: ServerAway | None = None
        self._units = script_units(rate)
        self._retry_interval = retry_interval
        self._away_until_s = 0.0
        self._on_change = on_change
        self._client = connect(server, timeout) if isinstance(server, str) else server
        self._owns_client = self._client is not server
        # Its own, so that it neither starves the program's threads nor is starved by them.
        self._thread = anyio.CapacityLimiter(1)

    @property
    def retry_in_s(self) -> float:
        """Seconds until a server that is away is asked again; 0.0 if it may be asked now."""
        return max(self._away_until_s - time.monotonic(), 0.0) if self.away else 0.0

    async def run(self, calls: Sequence[Call]) -> list[Answer] | None:
        """Run the script for all calls in one trip. Without the server, set `away` and return None."""
        if self.retry_in_s:
            return None
        try:
            answers = await anyio.to_thread.run_sync(self._execute, calls, limiter=self._thread)
        except Exception as error:  # noqa: BLE001 - whatever it is, the server is of no use
            away = ServerAway(f"{type(error).__name__}: {error}")
            away.__cause__ = error
            self._away_until_s = time.monotonic() + self._retry_interval
            self._note(away)
            return None
        self._note(None)
        return answers

    def _note(self, away: ServerAway | None) -> None:
        has_changed = (away is None) is not (self.away is None)
        self.away = away
        if has_changed and self._on_change is not None:
            self._on_change(away)

    async def aclose(self) -> None:
        """Close the connection, unless the client is the program's own."""
        if self._owns_client:
            with suppress(redis.RedisError, OSError):
                await anyio.to_thread.run_sync(self._client.close, limiter=self._thread)

    def _execute(self, calls: Sequence[Call]) -> list[Answer]:
        answers = self._pipeline(calls)
        if any(isinstance(answer, NoScriptError) for answer in answers):  # a server that is new, or was restarted
            self._client.script_load(SCRIPT)
            again = [call for call, answer in zip(calls, answers, strict=True) if isinstance(answer, NoScriptError)]
            fresh = iter(self._pipeline(again))
            answers = [next(fresh) if isinstance(answer, NoScriptError) else answer for answer in answers]
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return [Answer(int(taken), int(wait_us) / US_PER_S if wait_us >= 0 else math.inf) for taken, wait_us in answers]

    def _pipeline(self, calls: Sequence[Call]) -> list[Any]:
        with self._client.pipeline(transaction=False) as pipeline:
            for key, least, most in calls:
                pipeline.evalsha(_SHA, 1, PREFIX + key, *self._units, least, most)
            return pipeline.execute(raise_on_error=False)


def connect(url: str, timeout: float) -> redis.Redis:
    """A client that fails within the timeout, without trying again behind the caller's back."""
    retry = Retry(NoBackoff(), 0)
    return redis.Redis.from_url(url, socket_timeout=timeout, socket_connect_timeout=timeout, retry=retry)
