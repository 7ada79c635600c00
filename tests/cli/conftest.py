"""The real command in a process of its own, started, asked and ended within bounds."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, cast

import pytest
from tests.cli.forked import close_forkserver
from tests.cli.running import Answer, run_esockd

ESOCKD = Path(sys.executable).with_name("esockd")
LIMIT_S = 90.0


class Command:
    """A running `esockd`, started after a command of the shell."""

    def __init__(self, *arguments: str, cwd: Path, after: str = ":") -> None:
        environment = {**os.environ, "COLUMNS": "200", "PYTHONDONTWRITEBYTECODE": "1"}
        self.process = subprocess.Popen(
            ["sh", "-c", f'{after}; exec "$@"', "sh", ESOCKD, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd,
            env=environment,
        )

    def read_line(self) -> str:
        """The next line of stdout."""
        return cast("IO[str]", self.process.stdout).readline().rstrip("\n")

    def read_port(self) -> int:
        """The port of the next address that the command says it listens on."""
        return int(self.read_line().rpartition(":")[2])

    def connect(self, port: int) -> socket.socket:
        """A client on the loopback address."""
        return socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S)

    @staticmethod
    def receive(client: socket.socket, count: int) -> bytes:
        """Receive so many bytes, or what came before the end."""
        received = b""
        while len(received) < count and (data := client.recv(65_536)):
            received += data
        return received

    def signal(self, number: int) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def finish(self) -> tuple[int, str, str]:
        """Wait for the end; give exit status, what was left of stdout, and stderr."""
        out, err = self.process.communicate(timeout=LIMIT_S)
        return self.process.returncode, out, err

    def stop(self) -> tuple[int, str, str]:
        """Ask politely and wait for the end."""
        self.signal(signal.SIGTERM)
        return self.finish()


Start = Callable[..., Command]
RunEsockd = Callable[..., Answer]


@pytest.fixture(autouse=True)
def _control_sockets(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep control sockets in a folder of the test's own, with a short path."""
    with TemporaryDirectory(prefix="esockd-") as folder:
        monkeypatch.setenv("ESOCKD_RUNTIME_DIR", folder)
        yield


@pytest.fixture(scope="session", autouse=True)
def _end_forkserver() -> Iterator[None]:
    """End the process that commands are forked from with the tests."""
    yield
    close_forkserver()


@pytest.fixture
def esockd(tmp_path: Path) -> RunEsockd:
    """Run commands that end by themselves, in the folder of the test."""
    return partial(run_esockd, cwd=tmp_path)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start commands that do not outlive the test."""
    started: list[Command] = []

    def start_one(*arguments: str, after: str = ":") -> Command:
        started.append(Command(*arguments, cwd=tmp_path, after=after))
        return started[-1]

    yield start_one
    for command in started:
        if command.process.poll() is None:
            command.process.kill()
        command.process.communicate()


@pytest.fixture(params=["asyncio", "uvloop", "trio"])
def loop(request: pytest.FixtureRequest) -> str:
    """Each event loop that the command knows."""
    name: str = request.param
    return name
