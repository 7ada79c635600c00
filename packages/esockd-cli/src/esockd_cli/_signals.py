"""Signals, for the event loop to obey one after the other.

The handlers are Python's own rather than the event loop's, so that they work while a user's handler blocks the loop.
"""

from __future__ import annotations

import signal
import socket
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

import anyio

from esockd_cli._early_signals import take_signals

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, TracebackType

STOP: Final = (signal.SIGINT, signal.SIGTERM)
SIGNALS: Final = (*STOP, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class Signals:
    """What SIGINT, SIGTERM, SIGHUP, SIGUSR1 and SIGUSR2 ask for, in the order in which they came.

    Args:
        on_stop: Called in the main thread with the number of the request to stop, between any two bytecodes of it.

    Attributes:
        stops: Requests to stop so far: the first is polite, the second hurries, the third is the end.
        last_stop: The name of the signal that was the last of them.
    """

    def __init__(self, on_stop: Callable[[int], None]) -> None:
        self.stops = 0
        self.last_stop = ""
        self._on_stop = on_stop
        self._pending: deque[signal.Signals] = deque()
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def __enter__(self) -> Self:
        for number in SIGNALS:
            signal.signal(number, self._receive)
        for remembered in take_signals():
            self._receive(remembered, None)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # The handlers stay: a signal during the interpreter's own end must not show a traceback.
        self._on_stop = _ignore
        self._reader.close()
        self._writer.close()

    def _receive(self, number: int, _: FrameType | None) -> None:
        self._pending.append(signal.Signals(number))
        if number in STOP:
            self.stops += 1
            self.last_stop = signal.Signals(number).name
        with suppress(OSError):
            self._writer.send(b"\0")
        if number in STOP:
            self._on_stop(self.stops)

    async def next(self) -> signal.Signals:
        """The next signal, once there is one."""
        while not self._pending:
            await anyio.wait_readable(self._reader)
            with suppress(BlockingIOError):
                self._reader.recv(64)
        return self._pending.popleft()


def _ignore(_: int) -> None:
    """The command is over already."""
