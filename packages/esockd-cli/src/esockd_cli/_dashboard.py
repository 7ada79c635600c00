"""The dashboard of `esockd open --dashboard`: a child process in the same terminal, which this one leaves to it."""

from __future__ import annotations

import io
import logging
import signal
import subprocess
import sys
from collections import deque
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Final, cast

import anyio

if TYPE_CHECKING:
    from collections.abc import Iterator

HELD: Final = 1_000  # pieces of what is said meanwhile, the last ones
PATIENCE_S: Final = 2.0  # for the child to give the terminal back


async def show_dashboard(instance: str) -> None:
    """Show the dashboard of an instance until somebody quits it, and say afterwards what was to be said meanwhile.

    The child ends with this process, however this one ends: it watches its standard input, which ends then. At Ctrl-Z
    it gives the terminal back first, and stops this process then.

    Args:
        instance: The name of this process, or the path of its control socket.
    """
    command = [sys.executable, "-m", "esockd_cli", "top", "-i", instance, "--until-eof"]
    with _held_back(), _not_stopped():
        process = await anyio.open_process(command, stdin=subprocess.PIPE, stdout=None, stderr=None)
        try:
            await process.wait()
        finally:
            with anyio.CancelScope(shield=True):
                if process.stdin is not None:
                    await process.stdin.aclose()
                with anyio.move_on_after(PATIENCE_S) as patience:
                    await process.wait()
                if patience.cancelled_caught:
                    process.kill()
                    await process.wait()


class _Held(io.TextIOBase):
    """Stands for a stream of a terminal, and keeps what is written to it."""

    def __init__(self, stream: IO[str], held: deque[tuple[IO[str], str]]) -> None:
        self._stream = stream
        self._held = held

    def write(self, text: str, /) -> int:
        self._held.append((self._stream, text))
        return len(text)

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()


@contextmanager
def _not_stopped() -> Iterator[None]:
    """Let Ctrl-Z pass: the shell must not have the terminal before the child has given it back."""
    before = signal.signal(signal.SIGTSTP, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGTSTP, before)


@contextmanager
def _held_back() -> Iterator[None]:
    """Keep what this process writes to its terminal, and write it at the end."""
    held: deque[tuple[IO[str], str]] = deque(maxlen=HELD)
    out, err = sys.stdout, sys.stderr
    to_hold = {stream: cast("IO[str]", _Held(stream, held)) for stream in (out, err)}
    handlers = [
        handler
        for handler in logging.getLogger().handlers
        if isinstance(handler, logging.StreamHandler) and handler.stream in to_hold
    ]
    streams = [handler.setStream(to_hold[handler.stream]) for handler in handlers]
    sys.stdout, sys.stderr = to_hold[out], to_hold[err]
    try:
        yield
    finally:
        sys.stdout, sys.stderr = out, err
        for handler, stream in zip(handlers, streams, strict=True):
            handler.setStream(stream)
        for stream, text in held:
            stream.write(text)
            stream.flush()
