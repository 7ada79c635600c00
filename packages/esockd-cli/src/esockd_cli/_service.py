"""This process as a service: what its manager hears of it while it runs."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import anyio

from esockd_cli._notify import Notifier

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from esockd_core import ControlSource

STATUS_S: Final = 10.0  # between two looks at what the status line says
PINGS: Final = 3  # within the time of the watchdog, of which sd_watchdog_enabled(3) recommends two


class Service:
    """Tells the service manager that the listeners accept, how they are, and that the event loop runs.

    Args:
        source: Knows the listeners.
        notifier: Speaks to the manager.
    """

    def __init__(self, source: ControlSource, notifier: Notifier | None = None) -> None:
        self._source = source
        self._notifier = notifier or Notifier()
        self._is_stopping = False
        self._status = ""

    async def ready(self) -> None:
        """Say that all listeners accept."""
        if self._notifier.is_heard and not self._is_stopping:
            self._status = await self._describe()
            self._notifier.ready(self._status)

    def stopping(self) -> None:
        """Say that the listeners close."""
        if not self._is_stopping:
            self._is_stopping = True
            self._notifier.stopping("closing")

    def handed_over(self) -> None:
        """Fall silent: another process is the main one of the service now."""
        self._is_stopping = True
        self._notifier = Notifier({})

    @asynccontextmanager
    async def reloading(self) -> AsyncIterator[None]:
        """Say that a block reads the configuration again, and at its end that it has."""
        if not self._is_stopping:
            self._notifier.reloading()
        try:
            yield
        finally:
            await self.ready()

    async def tell(self) -> None:
        """Give signs of life and keep the status line fresh, until cancelled."""
        if not self._notifier.is_heard:
            return
        async with anyio.create_task_group() as tasks:
            if (watchdog_s := self._notifier.watchdog_s) is not None:
                tasks.start_soon(self._ping, watchdog_s / PINGS)
            tasks.start_soon(self._keep_status)

    async def _ping(self, every_s: float) -> None:
        # Its own task: whoever waits for a worker that hangs must not look as if the event loop did.
        while True:
            self._notifier.ping()
            await anyio.sleep(every_s)

    async def _keep_status(self) -> None:
        while True:
            await anyio.sleep(STATUS_S)
            status = await self._describe()
            if status != self._status:
                self._status = status
                self._notifier.tell(status)

    async def _describe(self) -> str:
        listeners, connections, bound = 0, 0, 0.0
        for control in self._source.listeners():
            stats = await control.get_stats()
            listeners += 1
            connections += stats.current_connections
            bound += math.inf if stats.max_connections is None else stats.max_connections
        of_all = f" of {bound:,.0f}" if math.isfinite(bound) else ""
        what = "closing" if self._is_stopping else "serving"
        plural = "s"[: listeners != 1]
        return f"{what}: {listeners} listener{plural}, {connections:,}{of_all} connections"
