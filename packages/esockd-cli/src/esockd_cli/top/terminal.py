"""The terminal: taken whole while the dashboard shows, and given back as it was on every way out."""

from __future__ import annotations

import os
import signal
import sys
import termios
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import anyio

from esockd_cli._errors import CommandError, ExitCode
from esockd_cli.top.guard import HIDDEN, SHOWN, Guard
from esockd_cli.top.terminal_output import write_past_all, write_within

if TYPE_CHECKING:
    from typing import Self

# xterm's private modes, which every terminal in use knows: the alternate screen, no cursor, no wrapping at the edge.
TAKE: Final = b"\x1b[?1049h\x1b[?25l\x1b[?7l"
GIVE_BACK: Final = b"\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"
# Terminals that know it show a picture when it is complete; the others pass it over.
BEGIN_PICTURE: Final = "\x1b[?2026h"
END_PICTURE: Final = "\x1b[?2026l"
TAKE_S: Final = 1.0  # for a terminal that takes nothing
LOCAL_FLAGS, INPUT_FLAGS, CONTROL_CHARACTERS = 3, 0, 6  # of what tcgetattr(3) gives


class Terminal:
    """The terminal of this process, whose input and output need not be it.

    To be entered before any event loop runs. The screen is taken with `take` and given back at the end.

    Raises:
        CommandError: There is no terminal.
    """

    def __init__(self) -> None:
        try:
            # A description of its own, so that it does not block and the shell's still does.
            self._fd = os.open(_path(), os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise CommandError(
                f"cannot open the terminal: {error.strerror}.",
                code="no_terminal",
                status=ExitCode.FAILED,
                hint="Write to a pipe instead: esockd top | cat",
            ) from error
        self._before = termios.tcgetattr(self._fd)
        self._during = _without_echo(self._before)
        self._guard = Guard(self._fd, self._before, self._during, GIVE_BACK)

    def __enter__(self) -> Self:
        self._guard.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.give_back()
        self._guard.__exit__()
        os.close(self._fd)

    def take(self) -> None:
        """Take the screen and the keys; again, where the process was stopped and the shell has changed them."""
        self._guard.tell(SHOWN)
        with suppress(OSError, termios.error):
            termios.tcsetattr(self._fd, termios.TCSANOW, self._during)
            write_within(self._fd, TAKE, TAKE_S)

    def give_back(self) -> None:
        """Give back what was taken, within two seconds even where the terminal takes no byte more."""
        with suppress(OSError, termios.error):  # it may be gone
            write_past_all(self._fd, GIVE_BACK)
            termios.tcsetattr(self._fd, termios.TCSANOW, self._before)
        self._guard.tell(HIDDEN)

    def stop(self, *others: int) -> None:
        """Stop this process as Ctrl-Z does, with the terminal given back, and return when it goes on.

        Args:
            others: Processes to stop before, now that the terminal is the shell's again.
        """
        self.give_back()
        for pid in others:
            os.kill(pid, signal.SIGSTOP)
        handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, handler)
        self.take()

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines."""
        try:
            columns, lines = os.get_terminal_size(self._fd)
        except OSError:
            return 80, 24
        return (columns, lines) if columns and lines else (80, 24)

    async def read(self) -> bytes:
        """Some bytes of what was typed; none where the terminal is gone."""
        while True:
            await anyio.wait_readable(self._fd)
            try:
                return os.read(self._fd, 1024)
            except BlockingIOError:
                continue
            except OSError:
                return b""

    async def write(self, data: bytes) -> None:
        """Write all bytes, as quickly as the terminal takes them.

        Raises:
            OSError: The terminal is gone.
        """
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:
                await anyio.wait_writable(self._fd)


def _path() -> str:
    with suppress(OSError):
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
        return "/dev/tty"
    return os.ttyname(sys.stdout.fileno())


def _without_echo(attributes: list[Any]) -> list[Any]:
    """Keys come one by one and unseen. Those that make signals go on to do so: even a program that hangs obeys them."""
    during = [*attributes]
    during[LOCAL_FLAGS] &= ~(termios.ICANON | termios.ECHO | termios.IEXTEN)
    during[INPUT_FLAGS] &= ~termios.IXON
    characters = [*attributes[CONTROL_CHARACTERS]]
    # As tcgetattr(3) gives them back: numbers without ICANON, bytes with it.
    characters[termios.VMIN], characters[termios.VTIME] = 1, 0
    during[CONTROL_CHARACTERS] = characters
    return during
