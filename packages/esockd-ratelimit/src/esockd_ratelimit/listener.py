"""A limit around any AnyIO listener.

When the limit is hit it keeps accepting and closes at once: a listener that only paused would fill the kernel's queue,
and every client in it would find out by a timeout.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import anyio
from anyio.abc import AsyncResource, Listener, SocketAttribute

from ._composite import CompositeLimiter
from ._errors import InvalidRateError, QueueFullError, TooManyKeysError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from anyio import TypedAttributeProvider
    from anyio.abc import TaskGroup

    from ._protocol import KeyedLimiter, Limiter

__all__ = ["RateLimitedListener", "WhenLimited", "peer_host"]

WhenLimited = Literal["close", "wait"]
StreamT = TypeVar("StreamT", bound=AsyncResource)

CLOSED_WHILE_WAITING: Final = (QueueFullError, TooManyKeysError)


def peer_host(stream: Any) -> Hashable:
    """The host a stream is connected to, or None where it has none: a Unix socket, or a peer that is gone already."""
    provider: TypedAttributeProvider = stream
    address = provider.extra(SocketAttribute.remote_address, None)  # noqa: S610 - not Django's
    return address[0] if isinstance(address, tuple) else None


class RateLimitedListener(Listener[StreamT]):
    """Hands on connections as fast as a limit allows.

    Args:
        listener: Any listener, `anyio.create_tcp_listener`'s or another wrapper. It is closed with this one.
        limiter: A limit for all connections together.
        source_limiter: A limit a source, such as a `KeyedTokenBucket`; asked first. Where both are buckets of this
            package, use a `CompositeLimiter` as `limiter` instead: then a connection that either refuses spends
            nothing of the other.
        when_limited: `"close"` a connection above the limit at once, or let it `"wait"` for its turn, as many as the
            limiter lets wait; the rest are closed.
        key: What a source is known by; by default the peer's host. Connections where it is None have no source limit.

    Attributes:
        accepted: How many connections were handed on.
        closed_rate_limited: How many were closed because of the limit.

    Raises:
        InvalidRateError: There is no limiter, or `when_limited` is unknown.
    """

    def __init__(
        self,
        listener: Listener[StreamT],
        limiter: Limiter | CompositeLimiter | None = None,
        *,
        source_limiter: KeyedLimiter | None = None,
        when_limited: WhenLimited = "close",
        key: Callable[[StreamT], Hashable] = peer_host,
    ) -> None:
        if limiter is None and source_limiter is None:
            raise InvalidRateError("a rate-limited listener needs a limiter, a source_limiter or both")
        if when_limited not in ("close", "wait"):
            raise InvalidRateError(f'when_limited must be "close" or "wait", not {when_limited!r}')
        self.listener = listener
        self.limiter = limiter
        self.source_limiter = source_limiter
        self.when_limited: WhenLimited = when_limited
        self.accepted: int = 0
        self.closed_rate_limited: int = 0
        self._key = key

    async def serve(self, handler: Callable[[StreamT], Any], task_group: TaskGroup | None = None) -> None:
        """Accept connections and start the handler for those within the limit, as `anyio.abc.Listener.serve`."""
        await self.listener.serve(partial(self._admit, handler), task_group)

    async def aclose(self) -> None:
        """Close the wrapped listener."""
        await self.listener.aclose()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """Those of the wrapped listener."""
        return self.listener.extra_attributes

    async def _admit(self, handler: Callable[[StreamT], Any], stream: StreamT) -> None:
        granted = False
        try:
            granted = await self._wait(stream) if self.when_limited == "wait" else self._try(stream)
            self.accepted += granted
            self.closed_rate_limited += not granted
        finally:
            if not granted:
                await anyio.aclose_forcefully(stream)
        if granted:
            await handler(stream)

    def _try(self, stream: StreamT) -> bool:
        key = self._key(stream)
        if self.source_limiter is not None and key is not None and not self.source_limiter.try_acquire(key):
            return False
        if isinstance(self.limiter, CompositeLimiter):
            return self.limiter.try_acquire(key=key)
        return self.limiter is None or self.limiter.try_acquire()

    async def _wait(self, stream: StreamT) -> bool:
        key = self._key(stream)
        try:
            if self.source_limiter is not None and key is not None:
                await self.source_limiter.acquire(key)
            if isinstance(self.limiter, CompositeLimiter):
                await self.limiter.acquire(key=key)
            elif self.limiter is not None:
                await self.limiter.acquire()
        except CLOSED_WHILE_WAITING:
            return False
        return True
