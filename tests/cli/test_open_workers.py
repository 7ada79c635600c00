"""`esockd open --workers`, and the commands that look at workers and replace them."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
from tests.cli.running import Instance, connect, talk

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import RunEsockd
    from tests.redis_server import RedisServer

pytestmark = pytest.mark.timeout(240)


def test_workers_share_limits_and_are_shown_and_replaced(loop: str) -> None:
    options = ("-c", "5", "--loop", loop, "--shutdown-timeout", "1s")
    with Instance("echo", "127.0.0.1:0", "--workers", "2", "-i", "edge", *options) as instance:
        port = instance.read_port()
        clients = [connect(port) for _ in range(12)]
        answers = [talk(client, b"hello") for client in clients]
        assert answers.count(b"hello") == 5

        shown = instance.run("ps", "--json").json["instances"][0]
        assert shown["workers"] == 2
        stats = instance.run("stats", "--json").json
        before = {each["pid"] for each in stats["workers"]}
        assert stats["listeners"][0]["stats"]["accepted"] == 5
        assert stats["listeners"][0]["stats"]["closed_max_limit"] == 7
        table = instance.run("stats").out
        assert "WORKER" in table
        assert all(str(pid) in table for pid in before)

        assert instance.run("restart", "--json").json["workers"] == 2

        after = {each["pid"] for each in instance.run("stats", "--json").json["workers"] if each["state"] != "retiring"}
        assert len(after) == 2
        assert not after & before
        for client in clients:
            client.close()
        status, _, err = instance.stop()
        assert status == 0
        assert "5 accepted, 7 refused (closed_max_limit 7)" in err


def test_sighup_replaces_the_workers_and_keeps_those_before_if_the_code_is_broken(
    start: Callable[..., Any], tmp_path: Path, loop: str
) -> None:
    def write(answer: bytes) -> None:
        lines = ("async def handle(connection):", "    async for _ in connection:")
        (tmp_path / "app.py").write_text("\n".join((*lines, f"        await connection.send({answer!r})\n")))

    def ask(port: int) -> bytes:
        with command.connect(port) as client:
            client.sendall(b"?")
            answer: bytes = client.recv(10)
            return answer

    write(b"one")
    command = start("open", "app:handle", "127.0.0.1:0", "--workers", "1", "--loop", loop, "--json")
    port = json.loads(command.read_line())["port"]
    assert ask(port) == b"one"

    (tmp_path / "app.py").write_text("import nothing_like_this\n")
    command.signal(signal.SIGHUP)
    told = json.loads(command.read_line())
    assert told["event"] == "restart_failed"
    assert "nothing_like_this" in told["reason"]
    assert ask(port) == b"one"

    write(b"two")
    command.signal(signal.SIGHUP)
    assert json.loads(command.read_line())["event"] == "restarted"
    assert ask(port) == b"two"
    assert command.stop()[0] == 0


@pytest.mark.parametrize("count", ["2", "auto"])
def test_a_handler_that_no_worker_can_import_ends_the_command_once_with_status_3(
    esockd: RunEsockd, tmp_path: Path, count: str
) -> None:
    (tmp_path / "app.py").write_text("import nothing_like_this\n")
    status, out, err = esockd("open", "app:handle", "127.0.0.1:0", "--workers", count)
    assert (status, out) == (3, "")
    assert err == "error: cannot import \"app:handle\": app.py line 1: No module named 'nothing_like_this'.\n"


@pytest.mark.parametrize("count", ["0", "65", "-1", "many", "1.5"])
def test_a_number_of_workers_that_cannot_be_is_a_wrong_command_line(esockd: RunEsockd, count: str) -> None:
    status, out, err = esockd("open", "echo", "127.0.0.1:0", f"--workers={count}")
    assert (status, out) == (2, "")
    assert err.startswith(f"error: --workers {count}: it takes a")


def test_an_address_in_use_is_told_as_without_workers(start: Callable[..., Any]) -> None:
    first = start("open", "echo", "127.0.0.1:0")
    port = first.read_port()
    status, _, err = start("open", "echo", f"127.0.0.1:{port}", "--workers", "2").finish()
    assert status == 3
    assert f"127.0.0.1:{port} is already in use" in err


def test_restart_of_an_instance_without_workers_says_so() -> None:
    with Instance("echo", "127.0.0.1:0") as instance:
        instance.read_port()
        answer = instance.run("restart")
        assert answer.status == 1
        assert "only workers can be replaced" in answer.err


def test_a_third_signal_ends_the_command_and_its_workers_at_once(start: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "import os, time\n"
        "async def handle(connection):\n"
        "    connection.send_nowait(str(os.getpid()).encode())\n"
        "    time.sleep(60)\n"
    )
    command = start("open", "app:handle", "127.0.0.1:0", "--workers", "2", "--shutdown-timeout", "none")
    with command.connect(command.read_port()) as client:
        worker = int(client.recv(10))
        for _ in range(3):
            command.signal(signal.SIGTERM)
            time.sleep(0.2)
        assert command.finish()[0] == 1
    deadline = time.monotonic() + 20
    while os.path.exists(f"/proc/{worker}"):  # noqa: PTH110
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_worker_that_blocks_its_loop_cannot_hold_up_the_end(start: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "import time\nasync def handle(connection):\n    connection.send_nowait(b'blocked')\n    time.sleep(60)\n"
    )
    command = start("open", "app:handle", "127.0.0.1:0", "--workers", "2", "--shutdown-timeout", "0s")
    with command.connect(command.read_port()) as client:
        assert client.recv(10) == b"blocked"
        status, _, err = command.stop()
    assert status == 0
    assert "worker_lost 1" in err


def test_a_rate_that_machines_share_holds_over_commands_and_their_workers(shared_redis: RedisServer) -> None:
    """One command with workers and one without stand for two machines."""
    rate = ("--max-conn-rate", "0/s burst 9", "--shared", shared_redis.url, "--shared-lease", "3")
    options = (*rate, "--shared-when-away", "closed", "--name", "shared", "--shared-processes", "3")
    with (
        Instance("echo", "127.0.0.1:0", "--workers", "2", *options) as one,
        Instance("echo", "127.0.0.1:0", *options) as other,
    ):
        ports = [one.read_port(), other.read_port()]
        answers: list[bytes] = []
        # Each of the three has a lease to spend, and the kernel chooses which worker a client meets.
        while answers.count(b"hello") < 9 or len(answers) < 40:
            with connect(ports[len(answers) % 2]) as client:
                answers.append(talk(client, b"hello"))
        assert answers.count(b"hello") == 9
        shown = one.run("get").out
        assert shared_redis.url in shown
        assert one.stop().status == other.stop().status == 0
