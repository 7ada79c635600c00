"""`esockd top` beside a running instance."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from tempfile import TemporaryDirectory
from typing import IO, TYPE_CHECKING, Any, cast

import pytest
from tests.cli.top.terminals import Tmux

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.cli.conftest import RunEsockd
    from tests.conftest import RequireTool

PROGRAM = textwrap.dedent("""
    import sys

    import anyio
    from esockd_core import ControlServer, Server
    from esockd_core.handlers import echo


    async def main(name):
        async with Server() as server, ControlServer(server, name):
            for each in ("echo", "other"):
                listener = await server.open(each, "127.0.0.1:0", echo, access_rules=["deny 127.0.0.2"])
                print(listener.port, flush=True)
            await listener.wait_closed()


    anyio.run(main, sys.argv[1])
""")


class Program:
    """An instance with the listeners "echo" and "other"."""

    def __init__(self, name: str = "edge") -> None:
        self.process = subprocess.Popen([sys.executable, "-c", PROGRAM, name], stdout=subprocess.PIPE, text=True)
        self.port, _ = (int(cast("IO[str]", self.process.stdout).readline()) for _ in range(2))

    def connect(self, source: str = "127.0.0.1") -> socket.socket:
        """A client of "echo"."""
        return socket.create_connection(("127.0.0.1", self.port), 20, source_address=(source, 0))

    def kill(self) -> None:
        """End it as the kernel would."""
        self.process.kill()
        self.process.wait()
        cast("IO[str]", self.process.stdout).close()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Program]]:
    """Start instances, whose control sockets are in a folder of their own, with a short path."""
    started: list[Program] = []

    def run_one(name: str = "edge") -> Program:
        started.append(Program(name))
        return started[-1]

    with TemporaryDirectory() as folder:
        monkeypatch.setenv("ESOCKD_RUNTIME_DIR", folder)
        yield run_one
        for program in started:
            program.kill()


@pytest.fixture
def tmux(require_tool: RequireTool, tmp_path: Path, run: Callable[..., Program]) -> Iterator[Tmux]:
    """A shell in a terminal of 120 columns and 30 lines, that knows of the instances."""
    terminal = Tmux(require_tool("tmux"), tmp_path, 120, 30)
    yield terminal
    terminal.close()


def test_a_pipe_gets_as_many_lines_as_asked_for(esockd: RunEsockd, run: Callable[..., Program]) -> None:
    with run().connect():
        status, out, err = esockd("top", "-n", "0.1", "-c", "3")
    assert (status, err) == (0, "")
    assert [line.split()[1] for line in out.splitlines()] == ["CONNECTIONS", "1", "1", "1"]


def test_a_script_gets_json(esockd: RunEsockd, run: Callable[..., Program]) -> None:
    run()
    status, out, _ = esockd("top", "echo", "-i", "edge", "-n", "0.1", "-c", "2", "--json")
    first, second = map(json.loads, out.splitlines())
    assert status == 0
    assert first["instance"]["name"] == "edge"
    assert [listener["name"] for listener in first["listeners"]] == ["echo"]
    assert second["listeners"][0]["rates"]["accepts"] == 0


def test_it_ends_when_nobody_reads_any_more(start: Callable[..., Any], run: Callable[..., Program]) -> None:
    run()
    command = start("top", "-n", "0.1")
    command.read_line()
    command.process.stdout.close()
    command.process.stdout = None
    assert command.finish()[0] == 0


def test_ctrl_c_ends_the_lines(start: Callable[..., Any], run: Callable[..., Program]) -> None:
    run()
    command = start("top", "-n", "0.1")
    command.read_line()
    command.signal(signal.SIGINT)
    status, _, err = command.finish()
    assert (status, err) == (130, "")


def test_without_an_instance_it_says_where_it_looked(esockd: RunEsockd, run: Callable[..., Program]) -> None:
    status, out, err = esockd("top")
    assert (status, out) == (4, "")
    folder = os.environ["ESOCKD_RUNTIME_DIR"]
    assert err == f"error: no running esockd instance (looked in {folder}). Start one: esockd open echo 5000\n"


def test_an_instance_that_does_not_run_is_named(esockd: RunEsockd, run: Callable[..., Program]) -> None:
    program = run("old")
    assert esockd("top", "-i", "edge")[0] == 4
    program.kill()
    status, _, err = esockd("top", "-i", "old")
    assert status == 4
    assert "its program has ended. Start one: esockd open echo 5000" in err


def test_of_several_instances_one_is_to_be_chosen(esockd: RunEsockd, run: Callable[..., Program]) -> None:
    run("edge")
    gone = run("gone")
    run("inner")
    gone.kill()
    status, _, err = esockd("top")
    assert (status, err) == (2, "error: 2 instances run: edge, inner. Choose one: -i edge\n")
    gone = run("gone")
    assert esockd("top", "-i", "inner", "-c", "1")[0] == 0


def test_recording_and_replaying_exclude_each_other(esockd: RunEsockd, tmp_path: Path) -> None:
    status, _, err = esockd("top", "--record", "a", "--replay", "b")
    assert (status, err) == (2, "error: --record and --replay exclude each other.\n")


def test_what_a_script_saw_is_recorded_and_replayed(
    esockd: RunEsockd, run: Callable[..., Program], tmp_path: Path
) -> None:
    run()
    _, seen, _ = esockd("top", "-n", "0.1", "-c", "3", "--record", "incident")
    status, replayed, _ = esockd("top", "--replay", "incident")
    assert (status, replayed) == (0, seen)
    status, _, err = esockd("top", "--record", "incident")
    assert (status, err) == (1, "error: incident exists already. Record to a new file.\n")


def test_a_full_disk_is_an_error_in_the_end(start: Callable[..., Any], run: Callable[..., Program]) -> None:
    run()
    status, out, err = start("top", "-n", "0.1", "-c", "2", "--record", "big", after="ulimit -f 1").finish()
    assert status == 1
    assert len(out.splitlines()) == 3
    assert "the recording big stopped: File too large." in err


def test_the_screen_shows_what_happens_and_survives_the_instance(tmux: Tmux, run: Callable[..., Program]) -> None:
    program = run()
    tmux.start("top", "-n", "0.2", "--record", "incident")
    tmux.wait_for("esockd  edge", "every 0.2 s", "echo", "recording")
    with program.connect(), program.connect("127.0.0.2"):
        tmux.wait_for("1/1,024")
        tmux.type("5")
        tmux.wait_for("127.0.0.1:", "1 open")
        tmux.type("3")
        tmux.wait_for("LAST REJECTS", "127.0.0.2:", "forbidden")
        tmux.type("1", "+")
        tmux.wait_for("every 0.5 s")
        program.kill()
        tmux.wait_for("does not answer", "GONE", "1/1,024")
    run()
    tmux.wait_for("0/1,024", gone="GONE")
    tmux.type("q")
    tmux.wait_for("status 0")
    tmux.assert_given_back()
    tmux.start("top", "--replay", "incident")
    tmux.wait_for("playing 1x")
    tmux.type("G")
    tmux.wait_for("paused 1x", "0/1,024")
    tmux.type("q")


def test_only_the_listener_that_is_named_is_shown(tmux: Tmux, run: Callable[..., Program]) -> None:
    run()
    tmux.start("top", "other@127.0.0.1:0")
    tmux.wait_for("other", "running", gone="echo ")
    tmux.type("q")
    tmux.wait_for("status 0")
