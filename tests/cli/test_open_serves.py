"""What `esockd open` serves, and how it says where."""

from __future__ import annotations

import json
import socket
import stat
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HANDLERS = """
import functools
from esockd_core import CallbackHandler

async def shout(connection):
    async for data in connection:
        await connection.send(data.upper())

async def greet(greeting, connection):
    await connection.send(greeting)

bound = functools.partial(greet, b"hello")

class Shout(CallbackHandler):
    def data_received(self, connection, data):
        connection.send_nowait(data.upper())

shared = Shout()
"""


def test_echo_echoes_on_every_loop_and_says_which(start: Callable[..., Any], loop: str) -> None:
    command = start("open", "echo", "127.0.0.1:0", "--loop", loop)
    with command.connect(command.read_port()) as client:
        client.sendall(b"hello")
        assert command.receive(client, 5) == b"hello"
    status, _, err = command.stop()
    assert status == 0
    assert f"serving on {loop};" in err


def test_loop_auto_is_uvloop_where_it_is_installed(start: Callable[..., Any]) -> None:
    command = start("open", "echo", "127.0.0.1:0")
    command.read_port()
    assert "serving on uvloop;" in command.stop()[2]


def test_a_bare_port_listens_on_both_loopback_addresses_and_says_so(start: Callable[..., Any]) -> None:
    command = start("open", "echo", "0")
    first, second = command.read_line(), command.read_line()
    port = int(first.rpartition(":")[2])
    assert (first, second) == (f"echo listening on 127.0.0.1:{port}", f"echo listening on [::1]:{port}")
    assert f"port {port} is open to this machine only" in command.stop()[2]


def test_several_addresses_are_several_listeners(start: Callable[..., Any], tmp_path: Path) -> None:
    command = start("open", "discard", "127.0.0.1:0", f"unix:{tmp_path}/s", "--unix-mode", "600", "--name", "sink")
    assert command.read_line().startswith("sink listening on 127.0.0.1:")
    assert command.read_line() == f"sink listening on unix:{tmp_path}/s"
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"{tmp_path}/s")
        client.sendall(b"abc")
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
    _, _, err = command.stop()
    assert "sink 127.0.0.1:0: 0 accepted" in err
    assert f"sink unix:{tmp_path}/s: 1 accepted, 0 refused, 3 B in, 0 B out, 1 ended (normal 1)" in err
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("spelling", ["static:hello", "static:@greeting"])
def test_static_sends_a_text_or_a_file(start: Callable[..., Any], tmp_path: Path, spelling: str) -> None:
    (tmp_path / "greeting").write_bytes(b"hello")
    command = start("open", spelling, "127.0.0.1:0")
    with command.connect(command.read_port()) as client:
        assert command.receive(client, 100) == b"hello"


@pytest.mark.parametrize(
    ("attribute", "answer"), [("shout", b"HI"), ("Shout", b"HI"), ("shared", b"HI"), ("bound", b"hello")]
)
def test_a_handler_of_ones_own_is_a_coroutine_function_or_callbacks(
    start: Callable[..., Any], tmp_path: Path, attribute: str, answer: bytes
) -> None:
    (tmp_path / "apps").mkdir()
    (tmp_path / "apps" / "myapp.py").write_text(HANDLERS)
    command = start("open", f"myapp:{attribute}", "127.0.0.1:0", "--app-dir", "apps")
    with command.connect(command.read_port()) as client:
        client.sendall(b"hi")
        assert command.receive(client, len(answer)) == answer


def test_allow_and_deny_are_one_list_in_the_order_typed(start: Callable[..., Any]) -> None:
    command = start(
        *("open", "static:in", "127.0.0.1:0", "--deny", "127.0.0.2", "--allow=127.0.0.0/30", "--deny", "all"),
        *("--allow", "127.0.0.9", "--refuse-with", "static:out"),
    )
    port = command.read_port()
    for source, answer in (("127.0.0.1", b"in"), ("127.0.0.2", b"out"), ("127.0.0.3", b"in"), ("127.0.0.9", b"out")):
        with socket.create_connection(("127.0.0.1", port), timeout=20, source_address=(source, 0)) as client:
            assert command.receive(client, 10) == answer
    assert "2 accepted, 2 refused (closed_forbidden 2)" in command.stop()[2]


def test_limits_refuse_and_the_summary_says_why(start: Callable[..., Any]) -> None:
    command = start("open", "echo", "127.0.0.1:0", "-c", "1", "--refuse-with", "static:busy", "--backlog", "50")
    port = command.read_port()
    with command.connect(port) as first:
        first.sendall(b"a")
        assert command.receive(first, 1) == b"a"
        with command.connect(port) as second:
            assert command.receive(second, 10) == b"busy"
    assert "1 refused (closed_max_limit 1)" in command.stop()[2]


def test_a_connection_rate_of_one_admits_one(start: Callable[..., Any]) -> None:
    command = start("open", "static:in", "127.0.0.1:0", "-r", "1/d", "--refuse-with", "static:later")
    port = command.read_port()
    with command.connect(port) as first, command.connect(port) as second:
        assert command.receive(first, 10) + command.receive(second, 10) == b"inlater"


def test_json_writes_one_object_a_line_and_nothing_to_stderr(start: Callable[..., Any]) -> None:
    command = start("open", "echo", "127.0.0.1:0", "--json")
    listening = json.loads(command.read_line())
    with command.connect(listening["port"]) as client:
        client.sendall(b"hello")
        assert command.receive(client, 5) == b"hello"
    status, out, err = command.stop()
    stopping, stopped = (json.loads(line) for line in out.splitlines())
    assert (status, err) == (0, "")
    assert listening | {"pid": 0, "loop": ""} == {
        "schema": 1,
        "event": "listening",
        "listener": "echo",
        "address": f"127.0.0.1:{listening['port']}",
        "port": listening["port"],
        "loop": "",
        "pid": 0,
        "instance": "echo",
    }
    assert (stopping["event"], stopping["signal"]) == ("stopping", "SIGTERM")
    assert (stopped["schema"], stopped["event"], stopped["signal"]) == (1, "stopped", "SIGTERM")
    (summary,) = stopped["listeners"]
    assert (summary["accepted"], summary["bytes_in"], summary["bytes_out"]) == (1, 5, 5)
    assert sum(summary["ended"].values()) == 1


def test_quiet_says_where_it_listens_and_nothing_else(start: Callable[..., Any]) -> None:
    command = start("open", "echo", "127.0.0.1:0", "-q")
    assert command.read_line().startswith("echo listening on 127.0.0.1:")
    assert command.stop() == (0, "", "")


def test_a_reader_of_stdout_that_went_away_does_not_end_the_listener(start: Callable[..., Any]) -> None:
    command = start("open", "echo", "127.0.0.1:0", "--json")
    port = json.loads(command.read_line())["port"]
    command.process.stdout.close()
    with command.connect(port) as client:
        client.sendall(b"hello")
        assert command.receive(client, 5) == b"hello"
    command.signal(15)
    assert command.process.wait(20) == 0


def test_a_failing_handler_is_one_line_with_its_place_and_with_v_a_traceback(
    start: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "faulty.py").write_text("async def handle(connection):\n    raise RuntimeError('boom')\n")
    for options, has_traceback in (((), False), (("-v",), True)):
        command = start("open", "faulty:handle", "127.0.0.1:0", *options)
        with command.connect(command.read_port()) as client:
            assert command.receive(client, 1) == b""
        status, _, err = command.stop()
        assert status == 0
        assert "RuntimeError('boom')" in err
        assert ("Traceback" in err) is has_traceback
        assert has_traceback or "faulty.py line 2" in err


def test_json_logs_are_one_object_a_line(start: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "faulty.py").write_text("async def handle(connection):\n    raise RuntimeError('boom')\n")
    command = start("open", "faulty:handle", "127.0.0.1:0", "--log-format", "json", "-q")
    with command.connect(command.read_port()) as client:
        assert command.receive(client, 1) == b""
    record = json.loads(command.stop()[2])
    assert (record["level"], record["logger"]) == ("error", "esockd_core")
    assert "boom" in record["message"]
    assert "Traceback" in record["exception"]
