"""One timer for many: it calls its members again and again, where a timer for each would cost more than they do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    import asyncio

CHUNK: Final = 256  # members that are called before the event loop gets its turn


class Member(Protocol):
    """What can be called."""

    def look(self) -> None:
        """It is this member's turn."""


class Rounds:
    """Calls `look` of every member once in each interval. The first call may come at any time within one.

    Args:
        loop: The event loop.
        interval_s: Seconds between two rounds.

    Attributes:
        interval_s: The same.
    """

    __slots__ = ("_loop", "_members", "_running", "interval_s")

    def __init__(self, loop: asyncio.AbstractEventLoop, interval_s: float) -> None:
        self._loop = loop
        self.interval_s = interval_s
        self._members: set[Member] = set()
        self._running = False

    def add(self, member: Member) -> None:
        """Call a member from now on."""
        self._members.add(member)
        if not self._running:
            self._running = True
            self._loop.call_later(self.interval_s, self._begin)

    def discard(self, member: Member) -> None:
        """Call it no more."""
        self._members.discard(member)

    def _begin(self) -> None:
        self._go_on(list(self._members))

    def _go_on(self, left: list[Member]) -> None:
        if len(left) > CHUNK:
            self._loop.call_soon(self._go_on, left[CHUNK:])
        elif self._members:
            self._loop.call_later(self.interval_s, self._begin)
        else:
            self._running = False
        for member in left[:CHUNK]:  # last, so that an error of one ends no later round
            if member in self._members:
                member.look()
