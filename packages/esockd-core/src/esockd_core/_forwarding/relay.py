"""A relay between a client and an upstream on any event loop: when it is over, why, and how both sides end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from esockd_core._stats.reasons import HALF_CLOSED_TIMEOUT, NORMAL, RESET

if TYPE_CHECKING:
    from esockd_core._connection.stream import StreamBase
    from esockd_core._forwarding.upstreams import Place, Upstream


class Runnable(Protocol):
    """A relay that is ready to begin."""

    async def run(self) -> None:
        """Relay until it is over."""


class Connector(Protocol):
    """Connects one client with an upstream, on its event loop.

    Attributes:
        is_blind: Whether `connect` cannot tell that nobody is there.
    """

    is_blind: ClassVar[bool]

    async def connect(self, place: Place, upstream: Upstream, header: bytes, timeout_s: float) -> Any:
        """Connect, send the header, and do the TLS handshake if the upstream has TLS.

        A call that fails or is cancelled leaves nothing open.

        Raises:
            OSError: If nobody accepts the connection there in time.
            UpstreamRefused: If it was lost at once, or the handshake failed.
        """
        ...

    def relay(self, upstream: Any, half_closed_timeout_s: float | None) -> Runnable:
        """Make the relay between the client and the upstream."""
        ...


class Relay(ABC):
    """Two connections whose bytes go from one to the other.

    Args:
        client: The connection of the listener.
        upstream: The connection that the forwarder made for it.
        half_closed_timeout_s: Seconds that may pass without a byte once one side has finished; None is for ever.
    """

    __slots__ = ("_has_ended", "_moved_at", "_moved_bytes", "client", "half_closed_timeout_s", "upstream")

    def __init__(self, client: StreamBase, upstream: StreamBase, half_closed_timeout_s: float | None) -> None:
        self.client = client
        self.upstream = upstream
        self.half_closed_timeout_s = half_closed_timeout_s
        self._has_ended = False
        self._moved_bytes = -1
        self._moved_at = 0.0

    async def run(self) -> None:
        """Relay until it is over. The upstream is then closed; the client may still be closing."""
        relays = self.client.site.watch.relays
        relays[self.client] = self.upstream
        try:
            try:
                self._begin()
                await self._until_over()
            finally:
                self._end()
            await self._until_closed()  # its last bytes have the time that those of a client have
        finally:
            del relays[self.client]
            self.upstream.close_socket()

    @abstractmethod
    def _begin(self) -> None:
        """Begin to pass each side's bytes and its end to the other."""

    @abstractmethod
    async def _until_over(self) -> None:
        """Return when it is over, or when it has gone quiet, after `_end(is_quiet=True)`."""

    @abstractmethod
    async def _until_closed(self) -> None:
        """Return when the socket of the upstream is closed."""

    def _is_over(self) -> bool:
        client, upstream = self.client, self.upstream
        return client.state != "open" or upstream.state != "open" or (client.has_finished and upstream.has_finished)

    def _look_every_s(self) -> float | None:
        if self.half_closed_timeout_s is None or not (self.client.has_finished or self.upstream.has_finished):
            return None
        return self.half_closed_timeout_s / 8  # as `sweep_all` looks at idle connections

    def _has_gone_quiet(self) -> bool:
        now = self.client.now()
        moved = sum(side.bytes_in + side.taken_bytes() for side in (self.client, self.upstream))
        if moved > self._moved_bytes:
            self._moved_bytes, self._moved_at = moved, now
        return self.half_closed_timeout_s is not None and now - self._moved_at >= self.half_closed_timeout_s

    def _end(self, *, is_quiet: bool = False) -> None:
        """Begin the end of both sides, once.

        A side that has the whole stream of the other is closed in order. A side whose stream was cut short is reset, so
        that it does not take what it has for the whole. So is a side that takes nothing of what it has yet to get.
        """
        if self._has_ended:
            return
        self._has_ended = True
        client, upstream = self.client, self.upstream
        reason = NORMAL
        if is_quiet:
            reason = HALF_CLOSED_TIMEOUT
        elif client.state == "closed":
            reason = RESET
        elif upstream.state == "closed" and not upstream.has_finished:
            reason = f"upstream_{upstream.end_reason or RESET}"
        for sink, source in ((client, upstream), (upstream, client)):
            if sink.state == "closing":
                continue  # somebody has seen to it already
            if source.has_finished and not (is_quiet and sink.undelivered_bytes()):
                sink.close_nowait(reason)
            else:
                sink.break_off(reason)
