"""Real terminals: tmux, and a bare pseudo-terminal that reads only when it is told to."""

from __future__ import annotations

import os
import pty
import re
import shlex
import subprocess
import termios
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cli.conftest import ESOCKD, LIMIT_S

if TYPE_CHECKING:
    from collections.abc import Callable

POLL_S = 0.05


def until(condition: Callable[[], bool], what: Callable[[], object] = lambda: "it did not happen") -> None:
    """Wait until something holds, and fail where it does not within the limit."""
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(POLL_S)


def children(pid: int) -> list[int]:
    """The child processes of one."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def is_alive(pid: int) -> bool:
    """Whether there is such a process, other than as a zombie."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


class Tmux:
    """A shell in a terminal of a size."""

    def __init__(self, tmux: str, folder: Path, width: int = 100, height: int = 30) -> None:
        self._tmux = (tmux, "-S", str(folder / "tmux"), "-f", os.devnull)
        environment = {**os.environ, "PS1": "$ ", "TZ": "UTC", "PYTHONDONTWRITEBYTECODE": "1", "LANG": "C.UTF-8"}
        environment.pop("NO_COLOR", None)
        subprocess.run(
            [*self._tmux, "new-session", "-d", "-x", str(width), "-y", str(height), "bash --norc --noprofile -i"],
            check=True, timeout=LIMIT_S, env=environment, cwd=folder,
        )  # fmt: skip

    def run(self, *arguments: str) -> str:
        """Give tmux a command."""
        result = subprocess.run(
            [*self._tmux, *arguments], check=True, timeout=LIMIT_S, capture_output=True, text=True
        )  # fmt: skip
        return result.stdout.rstrip("\n")

    def close(self) -> None:
        """End tmux and what runs in it."""
        subprocess.run([*self._tmux, "kill-server"], check=False, timeout=LIMIT_S, capture_output=True)

    def type(self, *keys: str) -> None:
        """Press keys, by tmux's names or as text."""
        self.run("send-keys", *keys)

    def start(self, *arguments: str) -> None:
        """Type a command line of esockd, which then says its status."""
        self.type(f'{shlex.join([str(ESOCKD), *arguments])}; echo "status $?"', "Enter")

    def resize(self, width: int, height: int) -> None:
        """Make the terminal another size."""
        self.run("resize-window", "-x", str(width), "-y", str(height))

    @property
    def screen(self) -> str:
        """What it shows."""
        return self.run("capture-pane", "-p", "-J")

    def wait_for(self, *texts: str, gone: str | None = None) -> str:
        """Wait until the screen shows texts, and not another, and give what it shows."""
        until(lambda: _shows(self.screen, texts, gone), lambda: f"{texts} are not in:\n{self.screen}")
        return self.screen

    @property
    def pid(self) -> int:
        """The process that the shell runs."""
        shell = int(self.run("display", "-p", "#{pane_pid}"))
        until(lambda: children(shell) != [])
        return children(shell)[-1]

    def assert_given_back(self) -> None:
        """Hold the terminal to how the shell had it: the screen, the cursor, and echo."""
        until(lambda: self.run("display", "-p", "#{alternate_on} #{cursor_flag} #{wrap_flag}") == "0 1 1")
        self.type("clear; stty -a", "Enter")
        settings = self.wait_for(" baud;", " echo ", "-extproc")
        assert re.search(r"(?<!-)\bicanon\b", settings)
        assert re.search(r"(?<!-)\bixon\b", settings)


def _shows(screen: str, texts: tuple[str, ...], gone: str | None) -> bool:
    return all(text in screen for text in texts) and (gone is None or gone not in screen)


class Pty:
    """The command on a bare pseudo-terminal, which takes what it writes only when it is read."""

    def __init__(self, *arguments: str, environment: dict[str, str]) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(ESOCKD, [str(ESOCKD), *arguments], {**os.environ, "TERM": "xterm", **environment})
        os.set_blocking(self.fd, False)
        self.output = b""

    def read_until(self, text: bytes) -> None:
        """Read until it has written a text."""

        def has_come() -> bool:
            try:
                self.output += os.read(self.fd, 65_536)
            except BlockingIOError:
                pass
            except OSError:  # it has ended
                return True
            return text in self.output

        until(has_come, lambda: self.output)

    def wait(self) -> int:
        """Wait for the end, without reading, and give the status."""
        status: list[int] = []

        def has_ended() -> bool:
            pid, code = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                status.append(os.waitstatus_to_exitcode(code))
            return bool(pid)

        until(has_ended)
        return status[0]

    @property
    def echoes(self) -> bool:
        """Whether the terminal shows what is typed."""
        return bool(termios.tcgetattr(self.fd)[3] & termios.ECHO)
