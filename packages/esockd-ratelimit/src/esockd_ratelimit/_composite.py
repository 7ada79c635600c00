"""Several limits at once, such as one of the program, one of the listener, one a source: all are charged, or none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from anyio.lowlevel import checkpoint_if_cancelled

from ._errors import InvalidRateError
from ._keyed import KeyedTokenBucket

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from ._bucket import TokenBucket


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer of a `CompositeLimiter`; true when the tokens were taken.

    Attributes:
        granted: Whether they were.
        limited_by: Name of the limit that said no, or None. If several did, the one that lasts longest.
        retry_after_s: Seconds until every limit would say yes, if nobody else took tokens; 0.0 when granted, `math.inf`
            for never.
    """

    granted: bool
    limited_by: str | None = None
    retry_after_s: float = 0.0

    def __bool__(self) -> bool:
        return self.granted


GRANTED: Final = Verdict(granted=True)


class CompositeLimiter:
    """Limits that must all agree. A request takes its tokens from every one of them, or from none.

    Args:
        limits: The limits by name. Plain buckets are asked before keyed ones, so that what the program as a whole
            refuses leaves no trace in a table of sources.

    Raises:
        InvalidRateError: There is no limit in it.
    """

    def __init__(self, limits: Mapping[str, TokenBucket | KeyedTokenBucket]) -> None:
        if not limits:
            raise InvalidRateError("a composite needs at least one limit")
        self.limits: Mapping[str, TokenBucket | KeyedTokenBucket] = dict(limits)
        self._keyed = [limit for limit in limits.values() if isinstance(limit, KeyedTokenBucket)]
        self._plain = [limit for limit in limits.values() if not isinstance(limit, KeyedTokenBucket)]

    def decide(self, n: int = 1, *, key: Hashable = None) -> Verdict:
        """Take n tokens from every limit now, or from none.

        Args:
            n: How many.
            key: Whose tokens, for the keyed limits among them.

        Returns:
            The answer; when it is no, who said so and when to come back.

        Raises:
            BurstExceededError: n is more than one of the limits ever grants; nothing was charged.
            InvalidTokensError: n is negative or not whole.
        """
        if self.try_acquire(n, key=key):
            return GRANTED
        waits_s = {name: self._wait_time(limit, n, key) for name, limit in self.limits.items()}
        limited_by = max(waits_s, key=waits_s.__getitem__)
        return Verdict(granted=False, limited_by=limited_by, retry_after_s=waits_s[limited_by])

    def try_acquire(self, n: int = 1, *, key: Hashable = None) -> bool:
        """Take n tokens from every limit now, or from none, as `decide` with a shorter answer.

        Raises:
            BurstExceededError: n is more than one of the limits ever grants; nothing was charged.
            InvalidTokensError: n is negative or not whole.
        """
        plain = keyed = 0
        try:
            for bucket in self._plain:
                if not bucket.try_acquire(n):
                    break
                plain += 1
            else:
                for buckets in self._keyed:
                    if not buckets.try_acquire(key, n):
                        break
                    keyed += 1
                else:
                    plain = keyed = 0  # all agree: nothing to undo
                    return True
        finally:
            for bucket in self._plain[:plain]:
                bucket._return(n * bucket._token)  # noqa: SLF001 - the buckets of this package
            for buckets in self._keyed[:keyed]:
                buckets._untake(key, n)  # noqa: SLF001 - as above
        return False

    def wait_time(self, n: int = 1, *, key: Hashable = None) -> float:
        """Seconds until `try_acquire` would say True, if nobody else took tokens.

        Raises:
            BurstExceededError: n is more than one of the limits ever grants.
            InvalidTokensError: n is negative or not whole.
        """
        return max(self._wait_time(limit, n, key) for limit in self.limits.values())

    async def acquire(self, n: int = 1, *, key: Hashable = None) -> None:
        """Take n tokens from every limit, waiting in turn in the queue of one after the other.

        The keyed limits come first: a source that waits for its own tokens holds up no other. Cancelled or refused,
        it gives back what the limits before had granted.

        Raises:
            TooManyKeysError: From a keyed limit, as there.
            QueueFullError: Too many callers wait for one of the limits; nothing stays charged.
            BurstExceededError: n is more than one of the limits ever grants; nothing was charged.
            InvalidTokensError: n is negative or not whole.
        """
        await checkpoint_if_cancelled()
        if self.try_acquire(n, key=key):
            return
        held: list[Callable[[], None]] = []
        try:
            for buckets in self._keyed:
                held.append(await buckets._hold(key, n))  # noqa: PERF401, SLF001 - an error must leave what was held
            for bucket in self._plain:
                held.append(await bucket._hold(n))  # noqa: PERF401, SLF001 - as above
        except BaseException:
            for give_back in held:
                give_back()
            raise

    def _wait_time(self, limit: TokenBucket | KeyedTokenBucket, n: int, key: Hashable) -> float:
        return limit.wait_time(key, n) if isinstance(limit, KeyedTokenBucket) else limit.wait_time(n)
