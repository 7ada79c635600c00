"""What a limiter has to offer, so that a program's own fits wherever ours do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Hashable


@runtime_checkable
class Limiter(Protocol):
    """One limit. `TokenBucket` and `RedisTokenBucket` are limiters, and so is any class with these three methods.

    It may be the hierarchical limiter of a broker, one that asks for the load of the machine, or one that counts bytes:
    with these methods, listeners take it.
    """

    def try_acquire(self, n: int = 1, /) -> bool:
        """Take n tokens now and return True, or take none and return False. Must not block."""
        ...

    def wait_time(self, n: int = 1, /) -> float:
        """Seconds until `try_acquire(n)` would return True if nobody else took tokens; 0.0 if it would now."""
        ...

    async def acquire(self, n: int = 1, /) -> None:
        """Take n tokens, waiting for them in turn. If cancelled, it has taken none."""
        ...


@runtime_checkable
class KeyedLimiter(Protocol):
    """One limit a key, such as the address of a peer. `KeyedTokenBucket` is one."""

    def try_acquire(self, key: Hashable, n: int = 1, /) -> bool:
        """Take n tokens of this key now and return True, or take none and return False. Must not block."""
        ...

    def wait_time(self, key: Hashable, n: int = 1, /) -> float:
        """Seconds until `try_acquire(key, n)` would return True if nobody else took tokens of this key."""
        ...

    async def acquire(self, key: Hashable, n: int = 1, /) -> None:
        """Take n tokens of this key, waiting for them in turn. If cancelled, it has taken none."""
        ...
