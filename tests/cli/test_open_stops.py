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
            time.sleep(0.001)  # or else it would keep other threads from running, such as the one that ends the process

async def block(connection):
    await connection.send(b"hello ")
    while True:
        time.sleep(0.1)
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


def test_it_stops_in_order_when_it_was_started_without_stdin_stdout_and_stderr(
    start: Callable[..., Any], loop: str, tmp_path: Path
) -> None:
    path = tmp_path / "echo"
    command = start("open", "echo", f"unix:{path}", "--loop", loop, after="exec 0<&- 1>&- 2>&-")
    while not path.exists():
        time.sleep(0.01)
    status, _, _ = command.stop()
    assert status == 0


def test_the_shutdown_timeout_bounds_a_handler_that_waits(hello: Callable[..., Any]) -> None:
    command, client = hello("wait", "--shutdown-timeout", "100ms")
    with client:
        command.signal(signal.SIGTERM)
        with pytest.raises(ConnectionResetError):  # a handler that was cancelled may have had more to say
            command.receive(client, 1)
    status, _, err = command.finish()
    assert status == 0
    assert "1 ended (shutdown 1)" in err


def test_a_second_signal_hurries_it(hello: Callable[..., Any]) -> None:
    command, client = hello("wait", "--shutdown-timeout", "none")
    with client:
        command.signal(signal.SIGINT)
        assert "closing; as long as they take" in _read_until_closing(command)
        command.signal(signal.SIGINT)
        with pytest.raises(ConnectionResetError):  # a handler that was cancelled may have had more to say
            command.receive(client, 1)
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
    assert ("blocks the event loop" in err) == (handler == "block")


def test_a_blocked_event_loop_names_the_handler_and_its_stack(hello: Callable[..., Any], tmp_path: Path) -> None:
    command, client = hello("block", "--shutdown-timeout", "0")
    with client:
        # Python hears a signal that comes just before a sleep only after it, so the handler sleeps for short times.
        command.signal(signal.SIGTERM)
        _, _, err = command.finish()
    line = HANDLERS[: HANDLERS.index("time.sleep(0.1)")].count("\n") + 1
    place = f"{tmp_path}/app.py line {line}, in block"
    assert f"warning: the handler app:block blocks the event loop at {place}\n" in err
    assert "    time.sleep(0.1)\n" in err


def _read_until_closing(command: Any) -> str:
    while "closing" not in (line := command.process.stderr.readline()):
        assert line
    return str(line)
