"""Start a process, talk with it in lines, and be sure that it ends."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from typing import IO, TYPE_CHECKING

from harness.errors import BenchmarkError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PR_SET_PDEATHSIG = 1  # <sys/prctl.h>
LIBC = ctypes.CDLL(None)


class Process:
    """A running child that is spoken to in lines.

    Attributes:
        name: What messages call it.
        pid: Its process id.
    """

    def __init__(self, name: str, popen: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
        self.name = name
        self.pid = popen.pid
        self._popen = popen
        self._errors = errors
        self._unread = b""

    def read_line(self, timeout_s: float) -> str:
        """The next line of its standard output, without the newline.

        Raises:
            BenchmarkError: It ended, or said nothing for `timeout_s` seconds.
        """
        assert self._popen.stdout is not None
        descriptor = self._popen.stdout.fileno()
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._unread:
            readable, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            if not readable:
                raise BenchmarkError(f"{self.name} said nothing for {timeout_s:g} s{self.last_words()}")
            data = os.read(descriptor, 65536)
            if not data:
                raise BenchmarkError(f"{self.name} ended with exit code {self._end()}{self.last_words()}")
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()

    def write_line(self) -> None:
        """Tell it to go on."""
        assert self._popen.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it ended: reading from it will say so
            self._popen.stdin.write(b"\n")

    def is_alive(self) -> bool:
        """Whether it is still running."""
        return self._popen.poll() is None

    def _end(self) -> int | str:
        try:
            return self._popen.wait(5)
        except subprocess.TimeoutExpired:
            return "unknown (it closed its output and goes on)"

    def last_words(self) -> str:
        """The end of its standard error, ready to be added to a message; nothing when it said nothing."""
        self._errors.seek(0)
        words = self._errors.read()[-2000:].decode(errors="replace").strip()
        return f"\nlast words of {self.name}:\n{words}" if words else ""


@contextlib.contextmanager
def running(name: str, command: Sequence[str], cpus: frozenset[int]) -> Iterator[Process]:
    """Run `command` on `cpus`; on the way out its whole process group is killed, whatever happened.

    It dies with this process too, even when this process is killed.

    Raises:
        BenchmarkError: The command can't be started.
    """
    parent = os.getpid()

    def prepare() -> None:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        os.sched_setaffinity(0, cpus)

    with tempfile.TemporaryFile() as errors:
        try:
            popen = subprocess.Popen(
                command,
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                preexec_fn=prepare,  # noqa: PLW1509 # this program has one thread
                process_group=0,
            )
        except OSError as error:
            raise BenchmarkError(f"cannot start {name}: {error}") from error
        try:
            yield Process(name, popen, errors)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(popen.pid, signal.SIGKILL)
            popen.wait(10)
            for pipe in (popen.stdin, popen.stdout):
                if pipe is not None:
                    pipe.close()


@contextlib.contextmanager
def serving(
    name: str, command: Sequence[str], cpus: frozenset[int], start_timeout_s: float = 20
) -> Iterator[tuple[Process, int]]:
    """Run a server that prints the port it listens on as its first line; yield it and the port.

    Raises:
        BenchmarkError: It does not start, or prints something else.
    """
    with running(name, command, cpus) as process:
        line = process.read_line(start_timeout_s)
        if not line.isdigit():
            raise BenchmarkError(f"{name} should print its port first, not {line!r}")
        try:
            yield process, int(line)
        except BenchmarkError as error:
            raise BenchmarkError(f"{error}{process.last_words()}") from error


def end_on_sigterm() -> None:
    """Let SIGTERM end this program as SIGINT does: through every `finally`."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
