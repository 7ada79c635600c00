"""The load client: compile it, run it beside a server, take its report."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import BenchmarkError
from harness.processes import Process, running

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SOURCES = Path(__file__).resolve().parent.parent / "load"
FLAGS = ["-O2", "-std=c11", "-Wall", "-Wextra"]


def compiled(name: str) -> str:
    """Compile benchmarks/load/NAME.c, unless that was done since it last changed; return the program's path.

    Raises:
        BenchmarkError: There is no C compiler, or it fails.
    """
    source, program = SOURCES / f"{name}.c", SOURCES / "build" / name
    if program.is_file() and program.stat().st_mtime_ns >= source.stat().st_mtime_ns:
        return str(program)
    compiler = shutil.which("cc")
    if compiler is None:
        raise BenchmarkError(
            "the load client is compiled from C and there is no cc: install a C compiler (Debian: gcc libc6-dev)"
        )
    program.parent.mkdir(exist_ok=True)
    unfinished = program.with_suffix(f".{os.getpid()}")  # others may compile it at the same time
    result = subprocess.run(
        [compiler, *FLAGS, "-o", unfinished, source], capture_output=True, text=True, timeout=120, check=False
    )
    if result.returncode:
        raise BenchmarkError(f"cc cannot compile {source}:\n{result.stderr}")
    unfinished.replace(program)
    return str(program)


class LoadClient:
    """A load client under way. It stops at `ready`, then at `measured`, and then reports."""

    def __init__(self, process: Process, timeout_s: float) -> None:
        self._process = process
        self._timeout_s = timeout_s

    def wait_until(self, point: str) -> None:
        """Wait until it stands at `point`.

        Raises:
            BenchmarkError: It ended, or did not get there in time.
        """
        line = self._process.read_line(self._timeout_s)
        if line != point:
            raise BenchmarkError(f"the load client said {line!r} instead of {point!r}")

    def go_on(self) -> None:
        """Let it leave the point it stands at."""
        self._process.write_line()

    def report(self) -> dict[str, Any]:
        """Let it leave `measured` (`ready` in mode idle), and return what it counted.

        Raises:
            BenchmarkError: The server lost, changed or added a byte, or failed a connection.
        """
        self.go_on()
        report: dict[str, Any] = json.loads(self._process.read_line(self._timeout_s))
        if report["errors"] or report["lost"] or report["corrupt"]:
            raise BenchmarkError(
                f"{report['errors']} errors, {report['lost']} operations lost: {report['first_error']}"
            )
        return report


@contextlib.contextmanager
def load(mode: str, port: int, cpus: frozenset[int], options: Sequence[str], timeout_s: float) -> Iterator[LoadClient]:
    """Run the load client against `port`; `timeout_s` bounds each of its steps.

    Args:
        mode: echo, connect, refuse or idle.
        port: Of the server, on 127.0.0.1.
        cpus: Where the client may run.
        options: As `load` explains them when it is called without any.
        timeout_s: Seconds for each step.
    """
    command = [compiled("load"), mode, "--port", str(port), "--step", *options]
    with running(f"load {mode}", command, cpus) as process:
        yield LoadClient(process, timeout_s)
