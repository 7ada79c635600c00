"""Several limits at once, such as those of a program, a listener and a source: all are charged, or none is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from anyio.lowlevel import checkpoint_if_cancelled

from ._bucket import TokenBucket
from ._cancellation import may_be_cancelled
from ._errors import InvalidOption
from ._keyed import KeyedTokenBucket

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer of a `CompositeLimiter`; true if the tokens were taken.

    Attributes:
        granted: Whether they were.
        limited_by: The name of the limit that refused, or None. If several did, the one that lasts longest.
        retry_after: Seconds until every limit would agree if nobody else took tokens; 0.0 if granted, `math.inf` for
            never.
    """

    granted: bool
    limited_by: str | None = None
    retry_after: float = 0.0

    def __bool__(self) -> bool:
        return self.granted


GRANTED: Final = Verdict(granted=True)


class CompositeLimiter:
    """Limits that must all agree. A request takes its tokens from every one of them, or from none.

    Args:
        limits: The limits by name. Plain buckets are asked before keyed ones, so that a request that the program as a
            whole refuses leaves no trace in a table of sources.

    Raises:
        InvalidOption: If there is no limit in it, or one that is not a bucket of this package.
    """

    def __init__(self, limits: Mapping[str, TokenBucket | KeyedTokenBucket]) -> None:
        if not limits:
            raise InvalidOption("it takes at least one limit", option="limits", value=limits)
        for name, limit in limits.items():
            _check_bucket(name, limit)
        self.limits: Mapping[str, TokenBucket | KeyedTokenBucket] = dict(limits)
        self._keyed = [limit for limit in limits.values() if isinstance(limit, KeyedTokenBucket)]
        self._plain = [limit for limit in limits.values() if not isinstance(limit, KeyedTokenBucket)]

    def decide(self, n: int = 1, *, key: Hashable = None) -> Verdict:
        """Take n tokens from every limit now, or from none.

        Args:
            n: How many.
            key: The key to charge in the keyed limits.

        Returns:
            The answer; a refusal names the limit and says when to come back.

        Raises:
            BurstExceeded: If n is more than one of the limits ever grants; nothing was charged.
            InvalidTokens: If n is negative or not whole.
        """
        if self.try_acquire(n, key=key):
            return GRANTED
        waits_s = {name: self._wait_time(limit, n, key) for name, limit in self.limits.items()}
        limited_by = max(waits_s, key=waits_s.__getitem__)
        return Verdict(granted=False, limited_by=limited_by, retry_after=waits_s[limited_by])

    def try_acquire(self, n: int = 1, *, key: Hashable = None) -> bool:
        """Take n tokens from every limit now, or from none: `decide` with a shorter answer.

        Raises:
            BurstExceeded: If n is more than one of the limits ever grants; nothing was charged.
            InvalidTokens: If n is negative or not whole.
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
        """Seconds until `try_acquire` would return True if nobody else took tokens.

        Raises:
            BurstExceeded: If n is more than one of the limits ever grants.
            InvalidTokens: If n is negative or not whole.
        """
        return max(self._wait_time(limit, n, key) for limit in self.limits.values())

    async def acquire(self, n: int = 1, *, key: Hashable = None) -> None:
        """Take n tokens from every limit, waiting in turn in the queue of one after the other.

        The keyed limits come first: a source that waits for its own tokens holds up no other. A caller that is
        cancelled or refused gives back what earlier limits had granted.

        Raises:
            TooManyKeys: As for a `KeyedTokenBucket`.
            QueueFull: If too many callers already wait for one of the limits; nothing stays charged.
            BurstExceeded: If n is more than one of the limits ever grants; nothing was charged.
            InvalidTokens: If n is negative or not whole.
        """
        if may_be_cancelled():
            await checkpoint_if_cancelled()
        if self.try_acquire(n, key=key):
            return
        held: list[Callable[[bool], None]] = []
        try:
            for buckets in self._keyed:
                held.append(await buckets._hold(key, n))  # noqa: PERF401, SLF001 - an error must leave what was held
            for bucket in self._plain:
                held.append(await bucket._hold(n))  # noqa: PERF401, SLF001 - as above
        except BaseException:
            for let_go in held:
                let_go(True)
            raise
        for let_go in held:
            let_go(False)

    def _wait_time(self, limit: TokenBucket | KeyedTokenBucket, n: int, key: Hashable) -> float:
        return limit.wait_time(key, n) if isinstance(limit, KeyedTokenBucket) else limit.wait_time(n)


def _check_bucket(name: str, limit: object) -> None:
    if not isinstance(limit, TokenBucket | KeyedTokenBucket):
        raise InvalidOption("it takes a TokenBucket or a KeyedTokenBucket", option=f"limits[{name!r}]", value=limit)
