"""Where logs go, and in which form: logfmt, files that are rotated, syslog and journald."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest
from tests.cli.running import LIMIT_S, Instance, connect, talk

from esockd_cli._errors import CommandError
from esockd_cli._log_file import stderr_in_file
from esockd_cli._log_lines import log_line
from esockd_cli._system_logs import JournalHandler, SyslogHandler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.cli.conftest import RunEsockd

pytestmark = pytest.mark.timeout(240)


def fields_of(line: str) -> dict[str, str]:
    """A line of logfmt as its fields; nothing is left over."""
    pairs = re.findall(r'(\w+)=("(?:[^"\\]|\\.)*"|\S+)(?: |$)', line)
    assert " ".join(f"{name}={value}" for name, value in pairs) == line
    return {name: json.loads(value) if value.startswith('"') else value for name, value in pairs}


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("plain", "plain"),
        ("two words", '"two words"'),
        ('a "quote"', r'"a \"quote\""'),
        ("a=b", '"a=b"'),
        ("line\nend", r'"line\nend"'),
        ("\x1b[31mred", r'"\u001b[31mred"'),
        ("", '""'),
        (("192.0.2.7", 5000), "192.0.2.7:5000"),
        (("fe80::1", 5000), "[fe80::1]:5000"),
        (17, "17"),
        (True, "true"),
    ],
)
def test_a_value_in_logfmt_can_be_told_from_the_next_field(value: object, written: str) -> None:
    line = log_line("logfmt", 0.0, "info", "esockd_core", "hello", what=value, more=1)
    assert line.endswith(f"message=hello what={written} more=1")


def test_every_line_of_stderr_is_logfmt_and_ids_are_those_of_the_list(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "async def handle(connection):\n"
        "    await connection.send(b'%d' % connection.id)\n"
        "    await connection.receive()\n"
        "    raise KeyError('two\\nlines')\n"
    )
    with Instance("app:handle", "127.0.0.1:0", "--log-format", "logfmt", cwd=tmp_path) as instance:
        instance.read_port()
        with connect(instance.port) as client:
            listed = instance.run("connections", "list", "--json").json["connections"][0]["id"]
            assert int(client.recv(20)) == listed
            client.sendall(b"go")
            line = instance.read_log_until("KeyError")
        failed = fields_of(line)
        assert failed["connection_id"] == str(listed)
        assert failed["level"] == "error"
        assert failed["listener"] == "handle"
        assert failed["peer"].startswith("127.0.0.1:")
        assert "two\\nlines" in failed["message"]
        instance.process.send_signal(signal.SIGUSR1)
        err = instance.stop().err
    assert all({"time", "level", "logger", "message"} <= fields_of(each).keys() for each in err.splitlines())
    assert "SIGTERM: closing" in err


def test_a_wrong_command_line_is_told_in_logfmt(esockd: RunEsockd) -> None:
    status, _, err = esockd("open", "ehco", "0", "--log-format", "logfmt")
    assert status == 2
    assert fields_of(err.strip())["code"]


def test_refused_clients_are_logged_from_info_on_with_the_total_of_what_was_left_out() -> None:
    given = ("echo", "127.0.0.1:0", "--deny", "127.0.0.1", "--log-level", "info")
    with Instance(*given, "--log-format", "json") as instance:
        instance.read_port()
        for _ in range(50):
            with connect(instance.port) as client:
                assert talk(client, b"x") == b""
        lines = [json.loads(line) for line in instance.stop().err.splitlines()]
    refused = [line for line in lines if line.get("reason") == "closed_forbidden"]
    left_out = [re.search(r"(\d+) more lines like", line["message"]) for line in lines]
    assert refused[0]["level"] == "info"
    assert refused[0]["peer"][0] == "127.0.0.1"
    assert len(refused) + sum(int(found[1]) for found in left_out if found) == 50


@pytest.mark.parametrize("workers", [(), ("--workers", "1")], ids=["one process", "workers"])
def test_a_rotated_log_file_is_opened_again_and_no_line_is_lost(tmp_path: Path, workers: tuple[str, ...]) -> None:
    (tmp_path / "app.py").write_text(
        "import logging\nasync def handle(connection):\n"
        "    async for data in connection:\n"
        "        logging.getLogger('app').warning('got %s', data.decode())\n"
        "        await connection.send(data)\n"
    )
    log, old = tmp_path / "edge.log", tmp_path / "edge.log.1"
    log.write_text("before\n")
    given = ("app:handle", "127.0.0.1:0", "--log-file", str(log), "--log-format", "logfmt", *workers)
    with Instance(*given, cwd=tmp_path) as instance:
        instance.read_port()
        with connect(instance.port) as client:
            assert talk(client, b"one") == b"one"
            log.rename(old)
            instance.process.send_signal(signal.SIGUSR1)
            wait_for(lambda: log.exists() and "1 accepted" in log.read_text())
            assert talk(client, b"two") == b"two"
        done = instance.stop()
    assert done.err == ""
    before, after = old.read_text(), log.read_text()
    assert before.startswith("before\n")
    assert "got one" in before
    assert "got one" not in after
    assert "got two" in after
    assert "got two" not in before
    assert "SIGTERM: closing" in after
    assert log.stat().st_mode & 0o777 & ~0o640 == 0


def test_a_log_file_that_cannot_be_opened_again_leaves_the_one_before(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    log = folder / "edge.log"
    with Instance("echo", "127.0.0.1:0", "--log-file", str(log)) as instance:
        instance.read_port()
        folder.rename(tmp_path / "old")
        instance.process.send_signal(signal.SIGUSR1)
        moved = tmp_path / "old" / "edge.log"
        wait_for(lambda: "accepted" in moved.read_text())
        assert "SIGUSR1: the log file stays the one before: " in moved.read_text()
        assert instance.stop().status == 0
        assert "SIGTERM: closing" in moved.read_text()


def test_what_cannot_be_logged_to_is_told_before_anybody_is_served(esockd: RunEsockd, tmp_path: Path) -> None:
    status, out, err = esockd("open", "echo", "0", "--log-file", str(tmp_path / "no" / "log"))
    assert (status, out) == (3, "")
    assert err == f"error: cannot write the log file {tmp_path}/no/log: No such file or directory.\n"
    status, out, err = esockd("open", "echo", "0", "--log-file", "/dev/full")
    assert (status, out) == (3, "")
    assert err == "error: cannot write the log file /dev/full: No space left on device.\n"
    status, out, err = esockd("open", "echo", "0", "--log-file", "x", "--log-to", "syslog")
    assert (status, out) == (2, "")
    assert "--log-file does nothing with --log-to syslog" in err


def test_a_pipe_that_nobody_reads_is_no_log_file_and_one_that_is_read_is(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    why = "cannot write the log file .*/pipe: it is a pipe that nobody reads"
    with pytest.raises(CommandError, match=why), stderr_in_file(str(pipe)):
        pytest.fail("nobody can be told anything")
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with stderr_in_file(str(pipe)):
            assert os.get_blocking(2)
            os.write(2, b"hello")
        assert os.read(reader, 10) == b"hello"
    finally:
        os.close(reader)


def test_an_error_at_the_start_is_on_stderr_and_not_in_the_file(esockd: RunEsockd, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        status, _, err = esockd("open", "echo", address, "--log-file", str(tmp_path / "log"))
    assert status == 3
    assert f"{address} is already in use" in err


def test_a_configuration_says_where_logs_go(tmp_path: Path) -> None:
    (tmp_path / "edge.toml").write_text(
        '[esockd]\nlog_file = "edge.log"\nlog_format = "logfmt"\nlog_level = "info"\n'
        '[listeners.edge]\nhandler = "echo"\nlisten = "127.0.0.1:0"\naccess_rules = ["deny all"]\n'
    )
    with Instance(str(tmp_path / "edge.toml"), command="run") as instance:
        instance.read_port()
        with connect(instance.port) as client:
            assert talk(client, b"x") == b""
        instance.stop()
    lines = [fields_of(line) for line in (tmp_path / "edge.log").read_text().splitlines()]
    assert [line["reason"] for line in lines if "reason" in line] == ["closed_forbidden"]


class System:
    """The socket of a system's log."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(LIMIT_S)

    def next(self) -> bytes:
        return self.socket.recv(1 << 20)

    def restart(self) -> None:
        """Begin again on a socket of the same name."""
        self.socket.close()
        self.path.unlink()
        self.__init__(self.path)  # type: ignore[misc]


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    found = System(tmp_path / "log")
    yield found
    found.socket.close()


def record(text: str, level: int = logging.WARNING, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("esockd_core", level, __file__, 1, text, None, None)
    vars(made).update(fields)
    return made


def test_syslog_gets_one_line_with_its_severity(system: System) -> None:
    handler = SyslogHandler(str(system.path))
    handler.emit(record("two\nlines", logging.ERROR))
    assert re.fullmatch(rb"<27>esockd\[\d+\]: two\\nlines", system.next())
    handler.emit(record("fine", logging.INFO))
    assert system.next().startswith(b"<30>")
    handler.close()


def test_journald_gets_what_a_line_is_about_as_fields(system: System) -> None:
    handler = JournalHandler(str(system.path))
    about: dict[str, Any] = {"listener": "echo", "connection_id": 7, "peer": ("2001:db8::1", 5), "reason": "reset"}
    handler.emit(record("one\nand two", **about))
    sent = system.next()
    assert sent.startswith(b"MESSAGE\n" + (11).to_bytes(8, "little") + b"one\nand two\nPRIORITY=4\n")
    for line in (b"LOGGER=esockd_core", b"ESOCKD_LISTENER=echo", b"ESOCKD_CONNECTION_ID=7", b"ESOCKD_REASON=reset"):
        assert line in sent.splitlines()
    assert b"ESOCKD_PEER=[2001:db8::1]:5" in sent.splitlines()
    handler.close()


def test_a_log_of_the_system_that_does_not_read_holds_up_nobody_and_is_told_what_it_missed(system: System) -> None:
    handler = SyslogHandler(str(system.path))
    for number in range(5000):  # more than any queue of datagrams holds
        handler.emit(record(f"line {number}"))
    system.socket.setblocking(False)
    taken = 0
    while True:
        try:
            system.next()
        except BlockingIOError:
            break
        taken += 1
    handler.emit(record("at last"))
    assert system.next().endswith(
        b"]: %d lines of logs were lost: the log of the system did not take them" % (5000 - taken)
    )
    assert system.next().endswith(b"]: at last")
    handler.close()


def test_a_log_of_the_system_may_start_again(system: System) -> None:
    handler = SyslogHandler(str(system.path))
    system.restart()
    handler.emit(record("after"))
    assert system.next().endswith(b"]: after")
    handler.close()


def test_without_a_log_of_the_system_it_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="cannot log to"):
        JournalHandler(str(tmp_path / "nowhere"))


def wait_for(is_so: Callable[[], bool]) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + LIMIT_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)
