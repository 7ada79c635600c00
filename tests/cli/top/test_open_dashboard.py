"""`esockd open --dashboard`: the listeners and their dashboard in one terminal."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import sys
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from tests.cli.top.terminals import Tmux, children, is_alive, until

from esockd_cli._dashboard import HELD, _held_back

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.conftest import RunEsockd
    from tests.conftest import RequireTool


@pytest.fixture
def tmux(require_tool: RequireTool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tmux]:
    """A shell in a terminal, with a folder of its own for control sockets."""
    with TemporaryDirectory() as folder:
        monkeypatch.setenv("ESOCKD_RUNTIME_DIR", folder)
        terminal = Tmux(require_tool("tmux"), tmp_path)
        yield terminal
        terminal.close()


@pytest.fixture
def both(tmux: Tmux) -> Tmux:
    """A listener that shows its dashboard."""
    tmux.start("open", "echo", "127.0.0.1:0", "--dashboard")
    tmux.wait_for("esockd  echo", "0/1,024")
    return tmux


def family(pid: int) -> list[int]:
    """A process and all that descends from it."""
    return [pid, *(each for child in children(pid) for each in family(child))]


def test_q_leaves_the_dashboard_and_the_listener_goes_on(both: Tmux) -> None:
    both.type("q")
    screen = both.wait_for("echo listening on 127.0.0.1:", "serving on", gone="0/1,024")
    found = re.search(r"listening on 127\.0\.0\.1:(\d+)", screen)
    assert found is not None
    with socket.create_connection(("127.0.0.1", int(found[1])), timeout=20) as client:
        client.sendall(b"hello")
        assert client.recv(5, socket.MSG_WAITALL) == b"hello"
    both.type("C-c")
    both.wait_for("1 accepted", "status 0")
    both.assert_given_back()


@pytest.mark.parametrize("how", ["C-c", "SIGTERM"])
def test_a_stop_ends_both_and_tells_what_was_held_back(both: Tmux, how: str) -> None:
    processes = family(both.pid)
    assert len(processes) >= 3
    if how == "C-c":
        both.type("C-c")
    else:
        os.kill(processes[0], signal.SIGTERM)
    both.wait_for("echo listening on", "closing", "0 accepted", "status 0", gone="0/1,024")
    both.assert_given_back()
    until(lambda: not any(map(is_alive, processes)))


def test_a_listener_that_is_killed_takes_its_dashboard_with_it(both: Tmux) -> None:
    processes = family(both.pid)
    os.kill(processes[0], signal.SIGKILL)
    until(lambda: not any(map(is_alive, processes)))
    both.assert_given_back()


def test_ctrl_z_and_fg_stop_and_continue_both(both: Tmux) -> None:
    both.type("C-z")
    both.wait_for("Stopped", gone="0/1,024")
    both.type("fg", "Enter")
    both.wait_for("esockd  echo", "0/1,024", gone="Stopped")
    both.type("q")
    both.wait_for("serving on", gone="0/1,024")
    both.type("C-c")
    both.wait_for("0 accepted")


def test_without_a_terminal_or_a_control_socket_there_is_no_dashboard(esockd: RunEsockd) -> None:
    status, _, err = esockd("open", "echo", "127.0.0.1:0", "--dashboard")
    assert (status, err) == (2, "error: --dashboard needs a terminal, and --json leaves none.\n")


def test_the_dashboard_needs_the_control_socket(tmux: Tmux) -> None:
    tmux.start("open", "echo", "127.0.0.1:0", "--dashboard", "--no-control")
    tmux.wait_for("error: --dashboard does nothing with --no-control.", "status 2")


def test_what_is_said_meanwhile_is_said_afterwards(capsys: pytest.CaptureFixture[str]) -> None:
    handler = logging.StreamHandler(sys.stderr)
    logging.getLogger().addHandler(handler)
    try:
        with _held_back():
            print("a line")
            logging.getLogger("esockd_cli").error("a warning")
            assert capsys.readouterr() == ("", "")
    finally:
        logging.getLogger().removeHandler(handler)
    assert capsys.readouterr() == ("a line\n", "a warning\n")


def test_of_very_much_that_is_said_meanwhile_the_last_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    with _held_back():
        for number in range(HELD):
            print(number)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == str(HELD - 1)
    assert len(lines) <= HELD
