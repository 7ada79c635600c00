"""The listener in the README of esockd-cidr, run as a user would run it."""

from __future__ import annotations

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

README = Path(__file__).resolve().parents[2] / "packages" / "esockd-cidr" / "README.md"
TIMEOUT_S = 90


@pytest.fixture
def start(tmp_path: Path) -> Iterator[object]:
    """Run the program, with its first rule exchanged; give the port once it listens."""
    programs: list[subprocess.Popen[bytes]] = []

    def run(first_rule: str) -> int:
        code = README.read_text().partition("<!-- skip: next -->\n```python\n")[2].partition("```")[0]
        assert code.count("5000") == 1
        assert code.count("allow 127.0.0.0/8") == 1
        port = steady_port()
        script = tmp_path / "program.py"
        script.write_text(code.replace("5000", str(port)).replace("allow 127.0.0.0/8", first_rule))
        program = subprocess.Popen([sys.executable, script], cwd=tmp_path)
        programs.append(program)
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S).close()
            except ConnectionRefusedError:
                assert program.poll() is None, "the program ended before it listened"
                assert time.monotonic() < deadline, "the program does not listen"
                time.sleep(0.02)
            else:
                return port

    yield run
    for program in programs:
        program.terminate()
        program.wait(TIMEOUT_S)


def talk(port: int) -> bytes:
    """What comes back until the end of the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S) as client:
        try:
            client.sendall(b"hello\n")
            client.shutdown(socket.SHUT_WR)
            with client.makefile("rb") as replies:
                return replies.read()
        except OSError:  # refused: reset before or while it was sent
            return b""


@pytest.mark.parametrize(
    ("first_rule", "reply"), [("allow 127.0.0.0/8", b"hello\n"), ("deny 127.0.0.0/8", b"")], ids=["allowed", "denied"]
)
def test_the_listener_in_the_readme_serves_whom_its_rules_let_in(start: object, first_rule: str, reply: bytes) -> None:
    assert callable(start)
    assert talk(start(first_rule)) == reply
