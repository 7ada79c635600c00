"""The dashboard at a real terminal: keys, sizes, and every way out."""

from __future__ import annotations

import os
import signal
import termios
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.cli.top.scene import make_frame
from tests.cli.top.terminals import Pty, Tmux, children, is_alive, until

from esockd_cli.top.guard import SHOWN, Guard
from esockd_cli.top.recording import Recorder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import RequireTool


@pytest.fixture
def recording(tmp_path: Path) -> str:
    """Two minutes of the made-up instance."""
    recorder = Recorder(tmp_path / "incident.jsonl")
    for second in range(120):
        recorder.add(make_frame(second))
    recorder.close()
    return str(tmp_path / "incident.jsonl")


@pytest.fixture
def tmux(require_tool: RequireTool, tmp_path: Path) -> Iterator[Tmux]:
    """A shell in a terminal of 100 columns and 30 lines."""
    terminal = Tmux(require_tool("tmux"), tmp_path)
    yield terminal
    terminal.close()


@pytest.fixture
def replay(tmux: Tmux, recording: str) -> Tmux:
    """A replay that stands still at its beginning."""
    tmux.start("top", "--replay", recording)
    tmux.wait_for("playing 1x")
    tmux.type("g", "Space")
    tmux.wait_for("paused 1x", "0s of 1m 59s")
    return tmux


def test_a_replay_plays_by_itself(tmux: Tmux, recording: str) -> None:
    tmux.start("top", "--replay", recording, "--speed", "60")
    tmux.wait_for("1m 59s of 1m 59s", "paused 60x")


def test_keys_show_views_details_and_help(replay: Tmux) -> None:
    replay.type(".", ".", ".")
    replay.wait_for("3s of 1m 59s", "all 5 listeners", "ACCEPTS/S")
    replay.type("2")
    replay.wait_for("TOTAL IN")
    replay.type("3", "Down")
    replay.wait_for("mqtts tls://*:8883", "LAST REJECTS")
    replay.type("4")
    replay.wait_for("ACCEPT p99", "HANDSHAKE, LAST MINUTE")
    replay.type("5", "PageDown")
    replay.wait_for("10,240 open, the oldest 60 here", "PEER")
    replay.type("1", "Tab")
    replay.wait_for("TOP SOURCES", "handshake_timeout")
    replay.type("?")
    replay.wait_for("a moment back, a moment on")
    replay.type("Escape")
    replay.wait_for("TOP SOURCES", gone="a moment back")


def test_a_filter_is_typed_and_taken_back(replay: Tmux) -> None:
    replay.type("/", "redis", "é", "BSpace")
    replay.wait_for("filter: redis ", "redis-gateway", gone="mqtts")
    replay.type("Enter")
    replay.wait_for("filter: redis", gone="Esc takes it back")
    replay.type("Escape")
    replay.wait_for("mqtts")


def test_a_replay_is_stepped_sought_and_hurried(replay: Tmux) -> None:
    replay.type("Right")
    replay.wait_for("10s of 1m 59s")
    replay.type(">", ",")
    replay.wait_for("1m 09s of 1m 59s", "00:01:09")
    replay.type("G")
    replay.wait_for("1m 59s of 1m 59s")
    replay.type("+", "+", "g")
    replay.wait_for("paused 4x", "0s of 1m 59s")


def test_the_picture_follows_the_size_of_the_terminal(replay: Tmux) -> None:
    assert "ADDRESS" in replay.screen
    replay.resize(50, 24)
    assert "10.20.30.40" not in replay.wait_for("LISTENER", gone="ADDRESS")
    replay.resize(40, 9)
    replay.wait_for("OPEN/MAX")
    replay.resize(200, 40)
    replay.wait_for("[2001:db8:85a3::8a2e:370:7334]:6379", "HS FAILS")
    assert max(map(len, replay.screen.splitlines())) == 200


def test_what_the_terminal_shows_is_what_was_drawn(replay: Tmux) -> None:
    replay.type("2", "tab", "tab", "1", ".", ",")
    before = replay.wait_for("0s of 1m 59s", "all 5 listeners")
    for keys in (("3", "1"), ("?", "?"), (".", ".", ",", ","), ("C-l",)):
        replay.type(*keys)
        replay.wait_for("0s of 1m 59s", "all 5 listeners", "REJECTS/S")
    replay.resize(99, 30)
    replay.wait_for("0s of 1m 59s")
    replay.resize(100, 30)
    until(lambda: replay.screen == before, lambda: replay.screen)


def test_q_gives_the_terminal_back(tmux: Tmux, recording: str) -> None:
    tmux.type("echo what was there before", "Enter")
    tmux.start("top", "--replay", recording)
    tmux.wait_for("playing")
    assert tmux.run("display", "-p", "#{alternate_on} #{cursor_flag}") == "1 0"
    tmux.type("q")
    tmux.wait_for("what was there before", "status 0", gone="playing")
    tmux.assert_given_back()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_to_end_gives_the_terminal_back(replay: Tmux, number: signal.Signals) -> None:
    os.kill(replay.pid, number)
    replay.wait_for("status 130", gone="paused 1x")
    replay.assert_given_back()


@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGSEGV, signal.SIGKILL], ids=lambda number: number.name)
def test_a_signal_that_kills_leaves_the_terminal_to_its_guard(replay: Tmux, number: signal.Signals) -> None:
    dashboard = replay.pid
    guards = children(dashboard)
    assert len(guards) == 1
    os.kill(dashboard, number)
    replay.assert_given_back()
    until(lambda: not any(map(is_alive, guards)))


def test_the_guard_gives_back_a_terminal_that_takes_nothing_at_that_moment() -> None:
    screen, terminal = os.openpty()
    os.set_blocking(terminal, False)
    attributes = termios.tcgetattr(terminal)
    with Guard(terminal, attributes, attributes, b"<given back>") as guard:
        guard.tell(SHOWN)
        with suppress(BlockingIOError):
            while True:
                os.write(terminal, b"." * 512)
    os.close(terminal)
    output = b""
    with suppress(OSError):  # its other end is closed
        while data := os.read(screen, 65_536):
            output += data
    os.close(screen)
    assert output.endswith(b"<given back>")


def test_ctrl_c_and_ctrl_backslash_end_it(replay: Tmux, recording: str) -> None:
    replay.type("C-c")
    replay.wait_for("status 130")
    replay.start("top", "--replay", recording)
    replay.wait_for("playing")
    replay.type("C-\\")
    replay.assert_given_back()


def test_ctrl_z_stops_it_and_fg_goes_on(replay: Tmux) -> None:
    replay.type("C-z")
    replay.wait_for("Stopped", gone="paused 1x")
    replay.assert_given_back()
    replay.type("fg", "Enter")
    replay.wait_for("paused 1x", "0s of 1m 59s", gone="Stopped")
    replay.type(".")
    replay.wait_for("1s of 1m 59s")
    assert replay.run("display", "-p", "#{alternate_on} #{cursor_flag}") == "1 0"
    replay.type("q")
    replay.wait_for(gone="paused 1x")
    replay.assert_given_back()


def test_a_process_stopped_by_another_takes_the_terminal_anew_when_it_goes_on(replay: Tmux) -> None:
    os.kill(replay.pid, signal.SIGSTOP)
    replay.wait_for("Stopped")
    replay.type("fg", "Enter")
    replay.wait_for("paused 1x", "0s of 1m 59s", gone="Stopped")
    replay.type("q")
    replay.wait_for(gone="paused 1x")
    replay.assert_given_back()


def test_an_error_is_told_on_the_screen_that_was_given_back(tmux: Tmux, recording: str) -> None:
    lines = Path(recording).read_text().splitlines()
    Path(recording).write_text("\n".join([*lines[:3], "{", *lines[4:]]) + "\n")
    tmux.start("top", "--replay", recording, "--speed", "4")
    tmux.wait_for("error:", "incident.jsonl: line 4 is broken", "status 1", gone="playing")
    tmux.assert_given_back()


def test_a_terminal_that_vanishes_takes_the_dashboard_with_it(replay: Tmux) -> None:
    dashboard = replay.pid
    processes = [dashboard, *children(dashboard)]
    replay.run("respawn-pane", "-k")
    until(lambda: not any(map(is_alive, processes)))


def test_a_terminal_that_takes_nothing_does_not_hold_it(recording: str) -> None:
    terminal = Pty("top", "--replay", recording, "--speed", "1000", environment={})
    terminal.read_until(b"\x1b[?2026h")
    # Nobody reads any more: the kernel's buffer fills, and the dashboard waits in the middle of a picture.
    os.kill(terminal.pid, signal.SIGTERM)
    assert terminal.wait() == 130
    assert terminal.echoes
    os.close(terminal.fd)


def test_no_color_and_ascii_are_obeyed(recording: str) -> None:
    terminal = Pty("top", "--replay", recording, "--ascii", environment={"NO_COLOR": "1"})
    terminal.read_until(b"?2026l")
    os.write(terminal.fd, b"q")
    terminal.read_until(b"?1049l")
    assert terminal.wait() == 0
    assert terminal.output.isascii()
    assert b";36m" not in terminal.output
    os.close(terminal.fd)
