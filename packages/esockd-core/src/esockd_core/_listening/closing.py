"""Closing a listener, of one process or of workers, and waiting for its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from esockd_core.control.interface import ListenerControl

if TYPE_CHECKING:
    import anyio


class Closing(ListenerControl):
    """Closes a listener, and tells when it accepts no more and when nothing is left of it."""

    _deaf: anyio.Event
    _closed: anyio.Event

    async def close(self) -> None:
        """Close the listener gracefully. Each handler has `shutdown_timeout` to end."""
        await self.drain()

    async def kill(self) -> None:
        """Close the listener and cancel every handler at once."""
        await self.drain(timeout=0)

    async def wait_draining(self) -> None:
        """Return when its listening sockets are closed, so that another listener may have its address."""
        await self._deaf.wait()

    async def wait_closed(self) -> None:
        """Return when nothing is left of the listener."""
        await self._closed.wait()
