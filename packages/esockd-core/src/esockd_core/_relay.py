"""A relay between a client and an upstream, on any event loop: when it is over, why, and how both sides end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final, Protocol

import anyio

from esockd_core._connection import NORMAL, RESET

if TYPE_CHECKING:
    from esockd_core._carried import Carried
    from esockd_core._upstreams import Place, Upstream

UPSTREAM_FAILED: Final = "upstream_failed"
HALF_CLOSED_TIMEOUT: Final = "half_closed_timeout"


class Forwarding(Protocol):
    """What connects one client with an upstream, on its event loop."""

    async def connect(self, place: Place, upstream: Upstream, header: bytes, timeout_s: float) -> Carried:
        """Connect: send the header, and do the TLS handshake if the upstream wants one.

        What fails or is cancelled leaves nothing open.

        Raises:
            OSError: Nobody takes the connection there, or not in time.
            UpstreamRefused: It was lost at once, or the handshake failed.
        """
        ...

    def relay(self, upstream: Carried, half_closed_timeout_s: float | None) -> Relay:
        """A relay between the client and the upstream, to be run."""
        ...


class Relay(ABC):
    """Two connections that are one.

    Args:
        client: Who connected to the listener.
        upstream: Who it was connected with.
        half_closed_timeout_s: Seconds without a byte that it may last once one side has finished; None is for ever.
    """

    __slots__ = ("_moved_at", "_moved_bytes", "client", "half_closed_timeout_s", "upstream")

    def __init__(self, client: Carried, upstream: Carried, half_closed_timeout_s: float | None) -> None:
        self.client = client
        self.upstream = upstream
        self.half_closed_timeout_s = half_closed_timeout_s
        self._moved_bytes = -1
        self._moved_at = 0.0

    async def run(self) -> None:
        """Relay until it is over; nothing is left of the upstream then, while the client may still be closing."""
        is_quiet = False
        try:
            try:
                self._begin()
                while not (self._is_over() or is_quiet):
                    is_quiet = not await self._changed(self._look_every_s()) and self._has_gone_quiet()
            finally:
                self._end(is_quiet=is_quiet)
            while self.upstream.state != "closed":  # its last bytes have the time that those of a client have
                await self._changed(None)
        finally:
            self.upstream.abort_socket()

    @abstractmethod
    def _begin(self) -> None:
        """Have each side's bytes passed on to the other, and its end."""

    @abstractmethod
    async def _changed(self, timeout_s: float | None) -> bool:
        """Return when a side finishes or is lost; False after so many seconds in which none did."""

    def _is_over(self) -> bool:
        client, upstream = self.client, self.upstream
        return client.state != "open" or upstream.state != "open" or (client.has_finished and upstream.has_finished)

    def _look_every_s(self) -> float | None:
        if self.half_closed_timeout_s is None or not (self.client.has_finished or self.upstream.has_finished):
            return None
        return self.half_closed_timeout_s / 8  # as `sweep_all` looks at idle connections

    def _has_gone_quiet(self) -> bool:
        now = anyio.current_time()
        moved = sum(side.bytes_in + side.bytes_out - side.unsent_bytes() for side in (self.client, self.upstream))
        if moved != self._moved_bytes:
            self._moved_bytes, self._moved_at = moved, now
        return self.half_closed_timeout_s is not None and now - self._moved_at >= self.half_closed_timeout_s

    def _end(self, *, is_quiet: bool) -> None:
        """Begin the end of both sides.

        Who has the whole stream of the other is closed in order. Whose stream was cut short is reset, so that it does
        not take what it has for all there was.
        """
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
            if source.has_finished:
                sink.close_nowait(reason)
            else:
                sink.reset(reason)
