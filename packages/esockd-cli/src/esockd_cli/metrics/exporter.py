"""What the endpoint tells: metrics that never run backwards, and whether the program is ready."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import anyio

from esockd_cli.metrics.table import transport_of
from esockd_cli.metrics.text import write_text
from esockd_core import Instance

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from esockd_core import ControlSource, ListenerSnapshot

FRESH_S: Final = 0.5  # so long one text serves all who ask


class Exporter:
    """Looks at the listeners of a program for those who scrape it.

    Several listeners of one name and transport are one series. When one of them is closed, what it had counted stays in
    the sum: a counter that runs backwards looks to Prometheus like a program that has started again, and all that the
    others have ever counted would look like new.

    Args:
        source: Knows the listeners.
        clock: Returns seconds.
    """

    def __init__(self, source: ControlSource, clock: Callable[[], float] = time.monotonic) -> None:
        self._source = source
        self._instance = Instance(source, "metrics")
        self._clock = clock
        self._turn = anyio.Lock()
        self._text: tuple[float, bytes] = (float("-inf"), b"")
        self._known: dict[tuple[str, str], ListenerSnapshot] = {}

    async def text(self) -> bytes:
        """All metrics; what was made a moment ago serves again."""
        async with self._turn:
            if self._clock() - self._text[0] > FRESH_S:
                snapshot = await self._instance.snapshot()
                whole = replace(snapshot, listeners=self._with_closed(snapshot.listeners))
                self._text = (self._clock(), await write_text(whole))
            return self._text[1]

    def _with_closed(self, listeners: Sequence[ListenerSnapshot]) -> tuple[ListenerSnapshot, ...]:
        known = {(each.status.name, each.status.address): each for each in listeners}
        series = {(each.status.name, transport_of(each)) for each in listeners}
        for key, last in self._known.items():
            if key not in known and (last.status.name, transport_of(last)) in series:
                known[key] = _closed(last)
        self._known = known
        return tuple(known.values())

    async def not_ready(self) -> str | None:
        """Why no clients should be sent here: no listener accepts, or one is suspended. None if they should.

        A listener that drains while others accept was taken out of the configuration, or closed by hand.
        """
        statuses = [await control.get_status() for control in self._source.listeners()]
        suspended = [each.name for each in statuses if each.state == "suspended"]
        if suspended:
            return f"suspended: {', '.join(suspended)}"
        if any(each.state == "running" for each in statuses):
            return None
        draining = any(each.state == "draining" for each in statuses)
        return "draining" if draining else "no listener is open"


def _closed(last: ListenerSnapshot) -> ListenerSnapshot:
    stats = replace(
        last.stats,
        current_connections=0,
        max_connections=None,
        entering=0,
        accept_queue_length=None,
        accept_queue_limit=None,
    )
    return replace(last, status=replace(last.status, state="closed"), stats=stats)
