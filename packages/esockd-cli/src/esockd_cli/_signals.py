"""SIGINT and SIGTERM as requests to stop: the first is polite, the second hurries, the third is the end.

The handlers are Python's own rather than the event loop's, so that they work while a user's handler blocks the loop.
"""

from __future__ import annotations

import signal
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, TracebackType

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class StopRequests:
    """Counts requests to stop, and wakes whoever waits for them in the event loop.

    Args:
        on_request: Called in the main thread with the number of the request, between any two bytecodes of it.

    Attributes:
        count: Requests so far.
        last: The name of the last signal.
    """

    def __init__(self, on_request: Callable[[int], None]) -> None:
        self.count = 0
        self.last = ""
        self._on_request = on_request
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def __enter__(self) -> Self:
        for number in SIGNALS:
            signal.signal(number, self._receive)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # The handlers stay: a signal during the interpreter's own end must not show a traceback.
        self._on_request = _ignore
        self._reader.close()
        self._writer.close()

    def _receive(self, number: int, _: FrameType | None) -> None:
        self.count += 1
        self.last = signal.Signals(number).name
        with suppress(OSError):
            self._writer.send(b"\0")
        self._on_request(self.count)

    async def wait(self, count: int) -> None:
        """Return once there are so many requests."""
        while self.count < count:
            await anyio.wait_readable(self._reader)
            with suppress(BlockingIOError):
                self._reader.recv(64)


def _ignore(_: int) -> None:
    """The command is over already."""
