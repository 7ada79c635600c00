"""One running instance for many commands, since starting programs is what costs most."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Any, NamedTuple, Self, cast

from tests.cli.forked import forkserver
from tests.patience import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

ESOCKD = Path(sys.executable).with_name("esockd")
LIMIT_S = 90.0


class Answer(NamedTuple):
    """What a command did."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON object on stdout."""
        return json.loads(self.out)


def run_esockd(*arguments: str, given: str = "", cwd: Path | None = None, **environment: str) -> Answer:
    """Run a command that ends by itself.

    Args:
        arguments: What follows `esockd`.
        given: What it reads on stdin.
        cwd: Where it runs.
        environment: What it has in its environment besides.
    """
    own = {**os.environ, "COLUMNS": "200", **environment}
    return Answer(*forkserver().run(ESOCKD, *arguments, given=given, timeout=LIMIT_S, env=own, cwd=cwd))


class Instance:
    """A running `esockd open` or `esockd run`, and other commands beside it.

    Args:
        arguments: What follows `esockd open`.
        folder: Of control sockets; None for a new one.
        command: "run" for `esockd run`.
        cwd: Where it starts.

    Attributes:
        port: Where its first listener was read to listen.
        program: The command line of `esockd` itself.
        variables: What it has in its environment besides.
        limit_s: The most seconds that a command, or the end of the instance, may take.
    """

    limit_s = LIMIT_S
    program: tuple[str | Path, ...] = (ESOCKD,)
    variables: Mapping[str, str] = MappingProxyType({})

    def __init__(
        self, *arguments: str, folder: str | None = None, command: str = "open", cwd: Path | None = None
    ) -> None:
        self.port = 0
        self._cwd = cwd
        self._own = None if folder else TemporaryDirectory(prefix="esockd-")
        self.folder = folder or cast("TemporaryDirectory[str]", self._own).name
        self.environment = {
            **os.environ,
            "ESOCKD_RUNTIME_DIR": self.folder,
            "PYTHONDONTWRITEBYTECODE": "1",
            "COLUMNS": "200",
            "TZ": "UTC",
            **self.variables,
        }
        self.process = subprocess.Popen(
            [*self.program, command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
            cwd=cwd,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        if self._own is not None:
            self._own.cleanup()

    def read_address(self) -> str:
        """The next address that it says it listens on."""
        return cast("IO[str]", self.process.stdout).readline().rstrip("\n").rpartition(" ")[2]

    def read_port(self) -> int:
        """The port of that address."""
        self.port = int(self.read_address().rpartition(":")[2])
        return self.port

    def read_log(self) -> str:
        """The next line of stderr."""
        return cast("IO[str]", self.process.stderr).readline().rstrip("\n")

    def run(self, *arguments: str, given: str = "", **environment: str) -> Answer:
        """Run another command beside it."""
        if self.program == Instance.program:
            return run_esockd(*arguments, given=given, cwd=self._cwd, **{**self.environment, **environment})
        done = subprocess.run(
            [*self.program, *arguments],
            input=given,
            capture_output=True,
            text=True,
            timeout=self.limit_s,
            check=False,
            env={**self.environment, **environment},
            cwd=self._cwd,
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    def read_log_until(self, words: str) -> str:
        """The next line of stderr that has these words. The instance is killed if there is none in time."""
        overdue = threading.Timer(PATIENCE_S, self.process.kill)
        overdue.start()
        try:
            for line in cast("IO[str]", self.process.stderr):
                if words in line:
                    return line.rstrip("\n")
        finally:
            overdue.cancel()
        raise AssertionError(f"no line has {words!r}")

    def stop(self) -> Answer:
        """Ask politely and wait for the end."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> Answer:
        """Wait for the end."""
        out, err = self.process.communicate(timeout=self.limit_s)
        return Answer(self.process.returncode, out, err)


def connect(port: int, source: str = "127.0.0.1") -> socket.socket:
    """A client from one of the loopback addresses."""
    return socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S, source_address=(source, 0))


def talk(client: socket.socket, data: bytes) -> bytes:
    """What an echo sends back; nothing where the client was refused or cut off."""
    received = b""
    try:
        client.sendall(data)
        while len(received) < len(data) and (more := client.recv(65_536)):
            received += more
    except (ConnectionResetError, BrokenPipeError):
        return b""
    return received
