"""The end of a process that does not end in time, whatever a handler does to the event loop."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import sys
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import anyio

import esockd_core
from esockd_cli._errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from esockd_cli._output import Output

logger = logging.getLogger("esockd_cli")

# What comes after a listener's own shutdown_timeout: a second for cancelled handlers, another for those whose socket
# was closed under them, and time for the loop to tell many of them.
FORCE_AFTER_S: Final = 4.0
BEAT_EVERY_S: Final = 0.2
BLOCKED_AFTER_S: Final = 1.0

# Code that is never a user's, and code that is not unless it is of an installed package.
OURS: Final = tuple(f"{Path(module.__file__ or '').parent}{os.sep}" for module in (anyio, esockd_core))
STANDARD: Final = f"{Path(asyncio.__file__).parent.parent}{os.sep}"


class ForcedEnd:
    """Watches the event loop once it was told to stop, and leaves without it when its time is over.

    Args:
        output: Where to tell.
        sum_up: Tells what the listeners did.
        handler: What the command line calls the handler.
    """

    def __init__(self, output: Output, sum_up: Callable[[], None], handler: str) -> None:
        self._output = output
        self._sum_up = sum_up
        self._handler = handler
        self._timer: threading.Timer | None = None
        self._is_watching = False
        self._alive_at = 0.0

    def after(self, delay_s: float) -> None:
        """Leave that many seconds from now, and not when it was said before."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = _in_thread(delay_s, self.force)

    def watch(self) -> None:
        """Tell who blocks the event loop, if it does not come to `beat`."""
        if not self._is_watching:
            self._is_watching = True
            _in_thread(BLOCKED_AFTER_S, self._tell_blocked)

    async def beat(self) -> None:
        """Show that the event loop is alive, and in the end that it is not needed any more."""
        try:
            while True:
                self._alive_at = time.monotonic()
                await anyio.sleep(BEAT_EVERY_S)
        finally:
            self._alive_at = math.inf  # what runs after the event loop, such as atexit, is no handler

    def _tell_blocked(self) -> None:
        if time.monotonic() - self._alive_at < BLOCKED_AFTER_S:
            return
        place, stack = _where_is_the_main_thread()
        logger.warning("the handler %s blocks the event loop at %s", self._handler, place, extra={"stack": stack})

    def force(self) -> None:
        """Leave now."""
        try:
            self._output.note("the listeners do not end in time; leaving without them")
            self._sum_up()
        finally:  # counters that change while another thread reads them may be unreadable for once
            leave(ExitCode.FAILED)


def _in_thread(delay_s: float, function: Callable[[], None]) -> threading.Timer:
    timer = threading.Timer(delay_s, function)
    timer.daemon = True
    timer.start()
    return timer


def _where_is_the_main_thread() -> tuple[str, str]:
    """The innermost line of a user's code that the main thread is in, and the way there."""
    frame = sys._current_frames()[threading.main_thread().ident or 0]  # noqa: SLF001 (documented)
    stack = traceback.extract_stack(frame)
    users = [position for position, line in enumerate(stack) if _is_of_user(line.filename)]
    line = stack[users[-1] if users else -1]
    shown = traceback.format_list(stack[users[0] if users else 0 :])
    return f"{line.filename} line {line.lineno}, in {line.name}", "".join(shown).rstrip()


def _is_of_user(filename: str) -> bool:
    if filename.startswith(("<", *OURS, f"{Path(__file__).parent}{os.sep}")):
        return False
    return "site-packages" in filename or not filename.startswith(STANDARD)


def leave(status: ExitCode) -> NoReturn:
    """End the process whatever its threads and handlers do."""
    for stream in (sys.stdout, sys.stderr):
        # No stream, no reader, or in the midst of a write: nothing more can be said.
        with suppress(AttributeError, OSError, RuntimeError, ValueError):
            stream.flush()
    os._exit(status)
