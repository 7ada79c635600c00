"""A port that a test is given is its own until its process ends."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.ports import steady_port


def draw_first(monkeypatch: pytest.MonkeyPatch, *numbers: int) -> None:
    """Let chance give these numbers before any others."""
    given, randrange = iter(numbers), random.randrange
    monkeypatch.setattr(random, "randrange", lambda *bounds: next(given, None) or randrange(*bounds))


def test_a_port_is_given_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ports = [steady_port(), steady_port()]
    draw_first(monkeypatch, *ports)
    assert steady_port() not in ports


@pytest.mark.linux
def test_a_port_that_another_test_process_was_given_is_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    program = "import sys; from tests.ports import steady_port; print(steady_port(), flush=True); sys.stdin.read()"
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        theirs = int(other.stdout.readline())
        draw_first(monkeypatch, theirs)
        assert steady_port() != theirs
        other.communicate()
    assert other.returncode == 0


def test_a_port_that_somebody_listens_on_is_given_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        draw_first(monkeypatch, port)
        assert steady_port() != port
