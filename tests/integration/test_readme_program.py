"""The program in the README, run as a user would run it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.ports import steady_port

if TYPE_CHECKING:
    from collections.abc import Iterator

TOP = Path(__file__).resolve().parents[2]
READMES = [TOP / "README.md", TOP / "packages/esockd-core/README.md"]
TIMEOUT_S = 90


def connect(port: int, program: subprocess.Popen[bytes]) -> socket.socket:
    """Connect as soon as the program listens."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
        except ConnectionRefusedError:
            assert program.poll() is None, "the program ended before it listened"
            assert time.monotonic() < deadline, "the program does not listen"
            time.sleep(0.02)


@pytest.fixture(params=READMES, ids=["top", "core"])
def program(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The first program of a README, and its port."""
    _, _, rest = request.param.read_text().partition("```python\n")
    code = rest.partition("```")[0]
    assert code.count("5000") == 1
    port = steady_port()
    script = tmp_path / "program.py"
    script.write_text(code.replace("5000", str(port)))
    with subprocess.Popen([sys.executable, script], cwd=tmp_path, stderr=subprocess.PIPE) as running:
        try:
            connect(port, running).close()
            yield running, port
        finally:
            running.kill()


def test_the_first_program_of_a_readme_echoes(program: tuple[subprocess.Popen[bytes], int]) -> None:
    assert_echoes(program[1])


def assert_echoes(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S) as client:
        client.sendall(b"hello\n")
        client.shutdown(socket.SHUT_WR)
        with client.makefile("rb") as replies:
            assert replies.read() == b"hello\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_the_first_program_of_a_readme_ends_in_order_at_a_signal(
    program: tuple[subprocess.Popen[bytes], int], number: signal.Signals
) -> None:
    running, port = program
    assert_echoes(port)
    running.send_signal(number)
    _, errors = running.communicate(timeout=TIMEOUT_S)
    assert (running.returncode, errors) == (0, b"")
