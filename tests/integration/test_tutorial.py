"""The tutorial, step by step: each file is written, each command run, and what it shows is what comes."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from tests.ports import steady_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import RequireTool

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "tutorial.md"
SCRIPTS: Final = Path(sys.executable).parent
TIMEOUT_S: Final = 90
BLOCK: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE_OF_KIND: Final = {"toml": "edge.toml", "": "haproxy.cfg"}
SERVERS: Final = ("esockd open", "esockd run", "haproxy ", "python main.py")


class Tour:
    """Does what a reader of the page does, in a folder of its own."""

    def __init__(self, folder: Path, stack: ExitStack, haproxy: str) -> None:
        self.folder = folder
        self.stack = stack
        self.haproxy = haproxy
        self.server: subprocess.Popen[str] | None = None
        self.ports = {"5000": steady_port(), "5001": steady_port(), "6000": steady_port()}
        runtime = folder / "runtime"
        runtime.mkdir(mode=0o700)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        path = f"{SCRIPTS}:{os.environ['PATH']}"
        self.environment = inherited | {"PATH": path, "ESOCKD_RUNTIME_DIR": str(runtime), "NO_COLOR": "1"}

    def with_free_ports(self, text: str) -> str:
        for name, port in self.ports.items():
            text = re.sub(rf"\b{name}\b", str(port), text)
        return text

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(self.with_free_ports(text))

    def do(self, command: str, shown: list[str]) -> None:
        """Run a command of the page and compare what it shows."""
        if command.startswith(SERVERS):
            self.serve(command, shown)
        elif command.startswith("nc "):
            _, host, port = shlex.split(command)
            with socket.create_connection((host, int(port)), TIMEOUT_S) as client, client.makefile("rwb") as stream:
                for line, expected in zip(shown[::2], shown[1::2], strict=True):
                    stream.write(f"{line}\n".encode())
                    stream.flush()
                    assert stream.readline().decode() == f"{expected}\n"
        elif "s_client" in command:
            with self.start(command) as program:
                assert program.stdin is not None
                assert program.stdout is not None
                program.stdin.write(f"{shown[0]}\n")
                program.stdin.flush()
                assert program.stdout.readline() == f"{shown[1]}\n"
                program.terminate()
        else:
            result = subprocess.run(
                shlex.split(command),
                cwd=self.folder,
                env=self.environment,
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                check=False,
            )
            assert result.returncode == (1 if "explain" in command and "refused" in shown[0] else 0), result.stderr
            for line in shown:
                assert line in result.stdout + result.stderr

    def serve(self, command: str, shown: list[str]) -> None:
        """Start a server in place of the one before; HAProxy runs beside it."""
        if not command.startswith("haproxy"):
            self.stop()
        place = command.replace("haproxy", self.haproxy, 1)
        server = self.stack.enter_context(self.start(place))
        self.stack.callback(server.kill)
        for line in shown:
            assert server.stdout is not None
            assert server.stdout.readline() == f"{line}\n"
        if command.startswith("haproxy"):
            wait_for(self.ports["6000"])
            return
        self.server = server
        if not shown:
            wait_for(self.ports["5000"])

    def start(self, command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            shlex.split(command),
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def stop(self) -> None:
        """Press Ctrl-C, as the page says."""
        if self.server is not None:
            self.server.terminate()
            assert self.server.wait(TIMEOUT_S) == 0


def wait_for(port: int) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), TIMEOUT_S).close()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "nobody listens"
            time.sleep(0.02)
        else:
            return


def commands(block: str) -> Iterator[tuple[str, list[str]]]:
    """Each command of a block, with the lines that it shows."""
    for part in block.removeprefix("$ ").split("\n$ "):
        command, *shown = part.splitlines()
        yield command, shown


@pytest.mark.timeout(180)
def test_every_step_of_the_tutorial_does_what_it_says(tmp_path: Path, require_tool: RequireTool) -> None:
    haproxy = require_tool("haproxy")
    require_tool("openssl")
    done = 0
    with ExitStack() as stack:
        tour = Tour(tmp_path, stack, haproxy)
        for kind, text in BLOCK.findall(PAGE.read_text()):
            if kind == "console":
                for command, shown in commands(tour.with_free_ports(text)):
                    tour.do(command, shown)
                    done += 1
            else:
                name = text.partition("\n")[0].removeprefix("# ") if kind == "python" else FILE_OF_KIND[kind]
                tour.write(name, text)
        tour.stop()
    assert done > 10
