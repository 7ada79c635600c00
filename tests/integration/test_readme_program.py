"""The program in the README, run as a user would run it."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

README = Path(__file__).resolve().parents[2] / "README.md"
TIMEOUT_S = 20


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


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


@pytest.fixture
def port_of_the_program(tmp_path: Path) -> Iterator[int]:
    _, _, rest = README.read_text().partition("```python\n")
    code = rest.partition("```")[0]
    assert code.count("5000") == 1
    port = free_port()
    script = tmp_path / "program.py"
    script.write_text(code.replace("5000", str(port)))
    with subprocess.Popen([sys.executable, script], cwd=tmp_path) as program:
        try:
            connect(port, program).close()
            yield port
        finally:
            program.terminate()


def test_the_program_in_the_readme_echoes(port_of_the_program: int) -> None:
    with socket.create_connection(("127.0.0.1", port_of_the_program), timeout=TIMEOUT_S) as client:
        client.sendall(b"hello\n")
        client.shutdown(socket.SHUT_WR)
        with client.makefile("rb") as replies:
            assert replies.read() == b"hello\n"
