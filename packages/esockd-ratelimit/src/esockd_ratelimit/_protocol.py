"""What a limiter is to those who ask it, so that a user's own fits wherever ours do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Hashable


@runtime_checkable
class Limiter(Protocol):
    """One limit. `TokenBucket` and `RedisTokenBucket` are limiters; so is any class with these three methods.

    A hierarchical limiter of a broker, a limiter that asks the load of the machine, or one that counts bytes: give
    them this shape and listeners take them.
    """

    def try_acquire(self, n: int = 1, /) -> bool:
        """Take n tokens now and say True, or take none and say False. Never blocks; called once a connection."""
        ...

    def wait_time(self, n: int = 1, /) -> float:
        """Seconds until `try_acquire(n)` would say True, if nobody else took tokens; 0.0 when it would now."""
        ...

    async def acquire(self, n: int = 1, /) -> None:
        """Take n tokens, waiting for them in turn. Cancelled, it has taken none."""
        ...


@runtime_checkable
class KeyedLimiter(Protocol):
    """One limit a key, such as the address of a peer. `KeyedTokenBucket` is one."""

    def try_acquire(self, key: Hashable, n: int = 1, /) -> bool:
        """Take n tokens of this key now and say True, or take none and say False."""
        ...

    def wait_time(self, key: Hashable, n: int = 1, /) -> float:
        """Seconds until `try_acquire(key, n)` would say True, if nobody else took tokens of this key."""
        ...

    async def acquire(self, key: Hashable, n: int = 1, /) -> None:
        """Take n tokens of this key, waiting for them in turn. Cancelled, it has taken none."""
        ...
