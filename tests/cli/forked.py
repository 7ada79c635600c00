"""Commands in processes that are forked from one which has imported all of `esockd`: to import it is what costs most.

A forked command is a process of its own, with the arguments, folder, environment and pipes that it was given, and it
ends like any other. Only Python has started already, and nothing is left to import. Tests of imports and of the start,
and tests that start a server, start the program itself.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cli.pipes import converse, make_pipe

if TYPE_CHECKING:
    from collections.abc import Mapping

PROGRAM = Path(__file__).with_name("forking.py")
ENVIRONMENT = dict(os.environ)  # of all tests, and not of the one that is first to run a command


class Forkserver:
    """The process that forks, seen by those whose commands it runs."""

    def __init__(self) -> None:
        self._requests, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", PROGRAM], stdin=theirs.fileno(), stdout=subprocess.DEVNULL, env=ENVIRONMENT
            )

    def run(
        self, program: Path, *arguments: str, given: str, timeout: float, env: Mapping[str, str], cwd: Path | None
    ) -> tuple[int, str, str]:
        """Run a command to its end; give its status and what it wrote."""
        argv = [str(program), *arguments]
        request = {"argv": argv, "env": dict(env), "cwd": str(cwd or Path.cwd())}
        ours, theirs = socket.socketpair()
        (their_stdin, stdin), (stdout, their_stdout), (stderr, their_stderr) = (make_pipe() for _ in range(3))
        with ours, stdin, stdout, stderr:
            with theirs, their_stdin, their_stdout, their_stderr:
                files = [each.fileno() for each in (their_stdin, their_stdout, their_stderr, theirs)]
                socket.send_fds(self._requests, [json.dumps(request).encode()], files)
            try:
                told, out, err = converse(ours, stdin, (stdout, stderr), given.encode(), timeout)
            except TimeoutError:
                raise subprocess.TimeoutExpired(argv, timeout) from None
        if not told:
            raise RuntimeError("the process that forks has ended")
        return int(told), out.decode(), err.decode()

    def close(self) -> None:
        """End it, and the commands that have not ended."""
        self._requests.close()
        self._process.wait()


@cache
def forkserver() -> Forkserver:
    """The one of this test process."""
    return Forkserver()


def close_forkserver() -> None:
    """End the one of this test process, if it was needed."""
    if forkserver.cache_info().currsize:
        forkserver().close()
        forkserver.cache_clear()
