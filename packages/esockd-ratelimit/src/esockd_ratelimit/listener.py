"""A limit around any AnyIO listener.

Above the limit it goes on accepting, and closes at once: a listener that only paused would fill the kernel's queue, and
every client in that queue would find out by a timeout.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from fractions import Fraction
from functools import partial
from socket import AF_INET, AF_INET6
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import anyio
from anyio.abc import AsyncResource, Listener, SocketAttribute

from ._bucket import TokenBucket
from ._checks import check_choice
from ._composite import CompositeLimiter
from ._errors import InvalidOption, QueueFull, TooManyKeys
from ._keyed import KeyedTokenBucket
from ._protocol import KeyedLimiter, Limiter
from ._rate import Rate

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from anyio import TypedAttributeProvider
    from anyio.abc import TaskGroup

    from ._rate import RateLike

__all__ = ["RateLimitedListener", "WhenLimited", "peer_host"]

WhenLimited = Literal["close", "wait"]
StreamT = TypeVar("StreamT", bound=AsyncResource)

CLOSED_WHILE_WAITING: Final = (QueueFull, TooManyKeys)

_logger: Final = logging.getLogger("esockd_ratelimit")


def peer_host(stream: Any) -> Hashable:
    """The host a stream is connected to; None for a Unix socket, or for a peer that has left already."""
    address = _extra(stream, SocketAttribute.remote_address)
    return address[0] if isinstance(address, tuple) else None


class RateLimitedListener(Listener[StreamT]):
    """Hands on connections as fast as a limit allows.

    Each connection counts in exactly one of the four numbers.

    Args:
        listener: Any listener, `anyio.create_tcp_listener`'s or another wrapper. It is closed with this one.
        limiter: The limit for all connections together: a limiter, or a rate such as `"500/s"` for a `TokenBucket`.
        source_limiter: The limit for each source: a keyed limiter, or a rate for a `KeyedTokenBucket`. It is asked
            first. If both are buckets of this package, use a `CompositeLimiter` as `limiter` instead: a connection that
            one of them refuses then spends nothing of the other.
        when_limited: `"close"` a connection above the limit at once, or let it `"wait"` for its turn. Connections that
            the limiter does not let wait are closed.
        key: Gives the key of a connection's source; by default the peer's host. Where it is None, there is no source
            limit.

    Attributes:
        limiter: The limit for all, or None.
        source_limiter: The limit for each source, or None.
        accepted: How many connections were handed on.
        closed_rate_limited: How many were closed because of the limit.
        closed_early: How many had no remote address any more, because the client had left; they spend nothing.
        closed_other_reasons: How many were closed because the limiter or `key` raised; the error is logged.

    Raises:
        InvalidOption: If there is no limiter, one of them is not a limiter, or `when_limited` is unknown.
        InvalidRate: If a rate is not valid.
    """

    def __init__(
        self,
        listener: Listener[StreamT],
        limiter: Limiter | CompositeLimiter | RateLike | None = None,
        *,
        source_limiter: KeyedLimiter | RateLike | None = None,
        when_limited: WhenLimited = "close",
        key: Callable[[StreamT], Hashable] = peer_host,
    ) -> None:
        if limiter is None and source_limiter is None:
            raise InvalidOption("it needs a limiter, a source_limiter or both")
        check_choice(when_limited, "when_limited", ("close", "wait"))
        self.listener = listener
        self.limiter: Limiter | CompositeLimiter | None = _limiter(limiter, "limiter", TokenBucket)
        self.source_limiter: KeyedLimiter | None = _limiter(source_limiter, "source_limiter", KeyedTokenBucket)
        self.when_limited: WhenLimited = when_limited
        self.accepted: int = 0
        self.closed_rate_limited: int = 0
        self.closed_early: int = 0
        self.closed_other_reasons: int = 0
        self._key = key

    async def serve(self, handler: Callable[[StreamT], Any], task_group: TaskGroup | None = None) -> None:
        """Accept connections and start the handler for those within the limit, as `anyio.abc.Listener.serve`."""
        await self.listener.serve(partial(self._admit, handler), task_group)

    async def aclose(self) -> None:
        """Close the wrapped listener."""
        await self.listener.aclose()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """The attributes of the wrapped listener."""
        return self.listener.extra_attributes

    async def _admit(self, handler: Callable[[StreamT], Any], stream: StreamT) -> None:
        is_granted = False
        try:
            is_granted = await self._judge(stream)
        except Exception:  # whatever it is, it ends this connection and no other
            self.closed_other_reasons += 1
            if not self.closed_other_reasons & (self.closed_other_reasons - 1):  # 1, 2, 4, 8...: no flood of lines
                _logger.exception(
                    "a limiter failed, for the %d. time; the connection was closed", self.closed_other_reasons
                )
        finally:
            if not is_granted:
                with suppress(Exception):  # a stream that cannot be closed properly, such as TLS cut short, is closed
                    await anyio.aclose_forcefully(stream)
        if is_granted:
            await handler(stream)

    async def _judge(self, stream: StreamT) -> bool:
        if _is_gone(stream):
            self.closed_early += 1
            return False
        key = self._key(stream)
        is_granted = await self._wait(key) if self.when_limited == "wait" else self._try(key)
        self.accepted += is_granted
        self.closed_rate_limited += not is_granted
        return is_granted

    def _try(self, key: Hashable) -> bool:
        if self.source_limiter is not None and key is not None and not self.source_limiter.try_acquire(key):
            return False
        if isinstance(self.limiter, CompositeLimiter):
            return self.limiter.try_acquire(key=key)
        return self.limiter is None or self.limiter.try_acquire()

    async def _wait(self, key: Hashable) -> bool:
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


def _extra(stream: Any, attribute: Any) -> Any:
    provider: TypedAttributeProvider = stream  # every stream of AnyIO is one
    return provider.extra(attribute, None)  # noqa: S610 - not Django's


def _is_gone(stream: Any) -> bool:
    """Whether the client of a TCP connection has left: its socket then has a family and no remote address."""
    if _extra(stream, SocketAttribute.remote_address) is not None:
        return False
    return _extra(stream, SocketAttribute.family) in {AF_INET, AF_INET6}


def _limiter(given: Any, option: str, bucket: type[TokenBucket | KeyedTokenBucket]) -> Any:
    if given is None or isinstance(given, Limiter | KeyedLimiter):
        return given
    if not isinstance(given, Rate | str | int | float | Fraction):
        raise InvalidOption("it takes a limiter or a rate", option=option, value=given)
    return bucket(given)
