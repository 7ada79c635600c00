"""The replay of a recording, at a terminal or as lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable

    from esockd_cli.top.dashboard import Dashboard
    from esockd_cli.top.player import Player


class ReplayFeed:
    """Shows the moments of a recording in their own time."""

    def __init__(self, player: Player, dashboard: Dashboard) -> None:
        self._player = player
        self._dashboard = dashboard
        self._moved = anyio.Event()

    async def run(self, changed: Callable[[], None]) -> None:
        """Play until cancelled."""
        while True:
            self._moved = anyio.Event()
            with anyio.move_on_after(self._player.due_in_s) as pause:
                await self._moved.wait()
            if pause.cancelled_caught:
                self._dashboard.show(self._player.advance())
                changed()

    def notice_key(self) -> None:
        """It may stand still now, or be somewhere else."""
        self._moved.set()
