"""A process that puts the terminal right when the dashboard was killed and could not do it itself."""

from __future__ import annotations

import os
import termios
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from esockd_cli.top.terminal_output import write_past_all

if TYPE_CHECKING:
    from typing import Self

SHOWN: Final = b"+"
HIDDEN: Final = b"-"


class Guard:
    """Waits, in a process of its own, for the end of this one.

    Nobody can catch SIGKILL, which is also how the kernel ends a process for want of memory. The child reads a pipe
    whose other end closes with this process; if the screen was the dashboard's at that moment, it gives it back.

    To be entered while this process has one thread.

    Args:
        terminal: A descriptor of the terminal.
        before: The terminal's attributes as they were.
        during: Its attributes while the dashboard has it. Where they are others by then, whoever set them has it.
        farewell: What gives the screen back.
    """

    def __init__(self, terminal: int, before: list[Any], during: list[Any], farewell: bytes) -> None:
        self._terminal = terminal
        self._before = before
        self._during = during
        self._farewell = farewell
        self._pid = self._writer = -1

    def __enter__(self) -> Self:
        reader, self._writer = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                self._watch(reader)
            finally:
                os._exit(0)
        os.close(reader)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._writer)
        os.waitpid(self._pid, 0)

    def tell(self, state: bytes) -> None:
        """Say who has the screen from now on."""
        with suppress(OSError):  # somebody killed the guard: then there is none
            os.write(self._writer, state)

    def _watch(self, reader: int) -> None:
        # A session of its own: neither Ctrl-C nor the shell's job control is meant for it.
        os.setsid()
        os.close(self._writer)
        state = HIDDEN
        while written := os.read(reader, 64):
            state = written[-1:]
        if state == SHOWN:
            with suppress(OSError, termios.error):
                write_past_all(self._terminal, self._farewell)
                if termios.tcgetattr(self._terminal) == self._during:
                    termios.tcsetattr(self._terminal, termios.TCSANOW, self._before)
