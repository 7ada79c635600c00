"""Bounds the share of the event loop's time for control clients: the program's own clients come first."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import anyio

if TYPE_CHECKING:
    from collections.abc import Iterator

SHARE: Final = 0.25
ALLOWANCE_S: Final = 0.25  # a client that asks little never waits


class Pace:
    """The pace of one control socket, which all its clients share.

    Args:
        share: The share of the time that may be spent, on average.
    """

    def __init__(self, share: float = SHARE) -> None:
        self._share = share
        self._paid_until = 0.0

    @contextmanager
    def spending(self) -> Iterator[None]:
        """Count the time of the block as spent. The block must not wait."""
        began = time.perf_counter()
        try:
            yield
        finally:
            spent_s = time.perf_counter() - began
            self._paid_until = max(self._paid_until, anyio.current_time()) + spent_s / self._share

    async def wait(self) -> None:
        """Return when there is time to spend again."""
        await anyio.sleep(max(0.0, self._paid_until - anyio.current_time() - ALLOWANCE_S))
