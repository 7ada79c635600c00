"""Does what a reader of a page does: each file is written, each command run, and what it shows is what comes."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, cast

from tests.ports import steady_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import RequireTool

TIMEOUT_S: Final = 90
BLOCK: Final = re.compile(r"^(<!-- not run: .+ -->\n)?```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAME: Final = re.compile(r"# ([\w.-]+\.\w+)\n")
FILE_OF_KIND: Final = {"toml": "edge.toml", "": "haproxy.cfg"}
SERVERS: Final = ("esockd open", "esockd run", "python ", "uvicorn ")
BESIDE: Final = ("haproxy", "nginx", "redis-server")  # these run on while servers come and go
LISTENS: Final = "listen|bind|open|open_listener|make_server|--port"
PORTS: Final = ("5000", "5001", "6000", "6001", "6002", "6379", "8000")


def take_tour(page: Path, folder: Path, require_tool: RequireTool) -> int:
    """Do all that a page says in a folder; return how many commands that were."""
    done = 0
    with ExitStack() as stack:
        tour = Tour(folder, stack, require_tool)
        for not_run, kind, text in BLOCK.findall(page.read_text()):
            if not_run:
                continue
            if kind == "console":
                for command, shown in commands(tour.with_free_ports(text)):
                    tour.do(command, shown)
                    done += 1
            else:
                named = NAME.match(text)
                if named or kind != "python":
                    tour.write(named[1] if named else FILE_OF_KIND[kind], text)
        tour.stop()
    return done


def commands(block: str) -> Iterator[tuple[str, list[str]]]:
    """Each command of a block, with the lines that it shows."""
    for part in block.removeprefix("$ ").split("\n$ "):
        command, *shown = part.splitlines()
        yield command, shown


class Tour:
    """One reader with a folder, whose ports are free ones in place of those on the page."""

    def __init__(self, folder: Path, stack: ExitStack, require_tool: RequireTool) -> None:
        self.folder = folder
        self.stack = stack
        self.require_tool = require_tool
        self.server: subprocess.Popen[str] | None = None
        self.ports = {name: steady_port() for name in PORTS}
        runtime = folder / "runtime"
        runtime.mkdir(mode=0o700)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        own = {"PATH": path, "ESOCKD_RUNTIME_DIR": str(runtime), "NO_COLOR": "1", "no_proxy": "*"}
        self.environment = inherited | own

    def with_free_ports(self, text: str) -> str:
        """The text with the ports of this tour."""
        for name, port in self.ports.items():
            text = re.sub(rf"\b{name}\b(?!/s)", str(port), text)
        return text

    def write(self, name: str, text: str) -> None:
        """Write a file of the page."""
        (self.folder / name).write_text(self.with_free_ports(text))

    def do(self, command: str, shown: list[str]) -> None:
        """Run a command of the page and compare what it shows."""
        if command.startswith((*SERVERS, *BESIDE)) and not command.startswith("python -m pytest"):
            self.serve(command, shown)
        elif command.startswith("nc "):
            self.talk(command, shown)
        elif "s_client" in command:
            program = self.start(command)
            self.stack.callback(end, program)
            stdin, stdout = cast("IO[str]", program.stdin), cast("IO[str]", program.stdout)
            stdin.write(f"{shown[0]}\n")
            stdin.flush()
            assert stdout.readline() == f"{shown[1]}\n"
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

    def talk(self, command: str, shown: list[str]) -> None:
        """Be `nc`: send every other line, and compare the answers."""
        words = shlex.split(command)
        source = (words[words.index("-s") + 1], 0) if "-s" in words else None
        address = (words[-2], int(words[-1]))
        with socket.create_connection(address, TIMEOUT_S, source) as client, client.makefile("rwb") as stream:
            for line, expected in zip(shown[::2], shown[1::2], strict=True):
                stream.write(f"{line}\n".encode())
                stream.flush()
                assert stream.readline().decode() == f"{expected}\n"

    def serve(self, command: str, shown: list[str]) -> None:
        """Start a server in place of the one before, or a program beside it."""
        is_beside = command.startswith(BESIDE)
        if not is_beside:
            self.stop()
        server = self.start(command)
        self.stack.callback(end, server)
        if not is_beside:
            self.server = server
        for line in shown:
            assert cast("IO[str]", server.stdout).readline() == f"{line}\n"
        if not shown:
            self.wait_for_ports(command)

    def wait_for_ports(self, command: str) -> None:
        """Wait until all ports listen that are on the command line, or in a file that it names."""
        text = command
        for word in shlex.split(command):
            file = self.folder / re.sub(r":\w+$", ".py", word)  # module:attribute
            text += file.read_text() if file.is_file() else ""
        for port in self.ports.values():
            if re.search(rf"({LISTENS})\b.*\b{port}\b", text):
                wait_for(port)

    def start(self, command: str) -> subprocess.Popen[str]:
        """Start a program in the folder."""
        words = shlex.split(command)
        if words[0] in BESIDE:
            words[0] = self.require_tool(words[0])
        return subprocess.Popen(
            words,
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
            # uvicorn ends itself by the signal that it has handled.
            assert self.server.wait(TIMEOUT_S) in {0, -signal.SIGTERM if is_uvicorn(self.server) else 0}
            self.server = None


def is_uvicorn(server: subprocess.Popen[str]) -> bool:
    """Whether it runs a web application."""
    return "uvicorn" in cast("list[str]", server.args)


def end(program: subprocess.Popen[str]) -> None:
    """End a program with its children: SIGTERM, and SIGKILL if it does not obey."""
    with program:
        program.terminate()
        try:
            program.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            program.kill()


def wait_for(port: int) -> None:
    """Wait until somebody listens."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), TIMEOUT_S).close()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "nobody listens"
            time.sleep(0.02)
        else:
            return
