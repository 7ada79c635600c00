"""How `esockd open` ends: politely, hurried, or without those who will not end."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HANDLERS = """
import time
import anyio

async def goodbye(connection):
    await connection.send(b"hello ")
    await connection.wait_draining()
    await connection.send(b"goodbye")

async def wait(connection):
    await connection.send(b"hello ")
    await anyio.sleep_forever()

async def swallow(connection):
    await connection.send(b"hello ")
    while True:
        try:
            await anyio.sleep_forever()
        except BaseException:
            pass

async def block(connection):
    await connection.send(b"hello ")
    time.sleep(1000)
"""


@pytest.fixture
def hello(start: Callable[..., Any], tmp_path: Path, loop: str) -> Callable[..., Any]:
    """Start a handler and connect to it; give command and client once the handler runs."""
    (tmp_path / "app.py").write_text(HANDLERS)

    def open_and_connect(handler: str, *options: str) -> Any:
        command = start("open", f"app:{handler}", "127.0.0.1:0", "--loop", loop, *options)
        client = command.connect(command.read_port())
        assert command.receive(client, 6) == b"hello "
        return command, client

    return open_and_connect


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_status_0_and_a_goodbye(hello: Callable[..., Any], number: int) -> None:
    command, client = hello("goodbye")
    with client:
        command.signal(number)
        assert command.receive(client, 100) == b"goodbye"
    status, out, err = command.finish()
    assert (status, out) == (0, "")
    assert f"{signal.Signals(number).name}: closing; up to 5 s for 1 connection" in err
    assert "1 ended (normal 1)" in err


def test_the_shutdown_timeout_bounds_a_handler_that_waits(hello: Callable[..., Any]) -> None:
    command, client = hello("wait", "--shutdown-timeout", "100ms")
    with client:
        command.signal(signal.SIGTERM)
        assert command.receive(client, 1) == b""
    status, _, err = command.finish()
    assert status == 0
    assert "1 ended (shutdown 1)" in err


def test_a_second_signal_hurries_it(hello: Callable[..., Any]) -> None:
    command, client = hello("wait", "--shutdown-timeout", "none")
    with client:
        command.signal(signal.SIGINT)
        assert "closing; as long as they take" in _read_until_closing(command)
        command.signal(signal.SIGINT)
        assert command.receive(client, 1) == b""
    status, _, err = command.finish()
    assert status == 0
    assert "1 ended (shutdown 1)" in err


def test_a_third_signal_leaves_at_once(hello: Callable[..., Any]) -> None:
    command, client = hello("block", "--shutdown-timeout", "none")
    with client:
        for _ in range(100):
            command.signal(signal.SIGINT)
            time.sleep(0.05)  # signals of one kind that are pending together arrive as one
            if command.process.poll() is not None:
                break
    assert command.finish()[0] == 1


@pytest.mark.parametrize("handler", ["swallow", "block"])
def test_a_handler_that_will_not_end_does_not_hold_the_process(hello: Callable[..., Any], handler: str) -> None:
    command, client = hello(handler, "--shutdown-timeout", "0")
    with client:
        command.signal(signal.SIGTERM)
        status, _, err = command.finish()
    assert status == 1
    assert "leaving without" in err
    assert f"{handler} 127.0.0.1:0: 1 accepted" in err


def _read_until_closing(command: Any) -> str:
    while "closing" not in (line := command.process.stderr.readline()):
        assert line
    return str(line)
