"""Command lines that `esockd open` refuses: what it says, and its exit status."""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import RunEsockd


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["echo", "0", "--deny", "10.0.0.1/33"], 'bad CIDR "10.0.0.1/33": an IPv4 prefix length is 0 to 32.'),
        (["echo", "fe80::1:5000"], "an IPv6 address needs brackets. Did you mean"),
        (["echo", "[fe80::1]:99999"], 'bad address "[fe80::1]:99999": port 99999 is out of range'),
        (["echo", "0", "--max-conections", "5"], "no such option: --max-conections. Did you mean --max-connections?"),
        (
            ["echo", "0", "--idle-timeout", "5"],
            'more than 0, or none. Did you mean "5s"?',
        ),
        (["echo", "0", "--max-conn-rate", "fast"], "--max-conn-rate fast: that is not a rate. Write it as"),
        (
            ["echo", "0", "--max-connections", "many"],
            "--max-connections many: it takes a whole number, 1 or more",
        ),
        (["echo", "0", "--max-connections", "0"], "--max-connections 0: it takes a whole number, 1 or more, or none."),
        (["echo", "0", "--acceptors", "65"], "--acceptors 65: it takes a whole number, 1 to 64"),
        (["echo", "0", "--tcp-option", "nodely=off"], '--tcp-option: there is no "nodely". Did you mean "nodelay"?'),
        (["echo", "0", "--tcp-option", "nodelay"], '"nodelay" has no "="'),
        (["echo", "0", "--tcp-option", "backlog=5", "--backlog", "6"], "backlog is given twice"),
        (["echo", "0", "--unix-mode", "600"], "no address is one"),
        (
            ["echo", "unix:s", "--unix-mode", "888"],
            "--unix-mode 888: it takes permission bits in octal",
        ),
        (["echo", "0", "--refuse-with", "bye"], "--refuse-with bye: it takes fin, rst, static:TEXT or static:@FILE."),
        (["echo", "0", "--loop", "curio"], "curio"),
        (["echo", "127.0.0.1:0", "127.0.0.1:0"], "127.0.0.1:0 is given twice."),
        (["ehco", "0"], 'unknown handler "ehco". Did you mean "echo"?'),
        (["static:@nowhere", "0"], 'static: cannot read "nowhere": No such file'),
        (["nowhere:handle", "0"], 'cannot import "nowhere:handle": there is no module "nowhere"'),
        (["json:handle", "0"], 'cannot import "json:handle": it has no "handle"'),
        (["json:loads", "0"], '"json:loads" is a function, but no handler'),
        (["echo"], "missing argument 'LISTEN...'"),
        (["5000", "echo"], '"5000" is an address: the handler comes first. Write: esockd open echo 5000'),
        (["*:5000", "app:handle"], '"*:5000" is an address: the handler comes first. Write: esockd open echo *:5000'),
        (["tls://127.0.0.1:5000", "static:hi"], "Write: esockd open static:hi tls://127.0.0.1:5000"),
        (["echo", "80x"], 'bad address "80x": a port is a number from 0 to 65535.'),
        (["echo", "localhost"], 'bad address "localhost": the port is missing. Write "localhost:5000".'),
        (
            ["echo", "0", "--tcp-option", "keepalive_count=0"],
            "--tcp-option keepalive_count=0: it takes a whole number, 1 to",
        ),
        (["echo", "0", "--tcp-option", "nodelay=maybe"], "--tcp-option nodelay=maybe: it takes on or off."),
        (
            ["echo", "unix:s", "--tcp-option", "nodelay=off"],
            "--tcp-option nodelay=off: it does not apply to Unix sockets",
        ),
        (
            ["echo", "unix:s", "--unix-owner", "nobody-of-that-name"],
            "--unix-owner nobody-of-that-name: this machine does not",
        ),
    ],
)
def test_a_wrong_command_line_is_one_line_and_status_2(esockd: RunEsockd, arguments: list[str], message: str) -> None:
    status, out, err = esockd("open", *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["echo", "5000"], 'there is no command "echo". Write: esockd open echo 5000'),
        (["static:hello", "0"], 'there is no command "static:hello". Write: esockd open static:hello 0'),
        (["opne", "echo"], 'there is no command "opne". Did you mean "open"?'),
        (["xyz"], 'there is no command "xyz". See: esockd --help'),
    ],
)
def test_a_command_that_does_not_exist_is_met_with_what_was_meant(
    esockd: RunEsockd, arguments: list[str], message: str
) -> None:
    assert esockd(*arguments) == (2, "", f"error: {message}\n")


def test_an_address_in_use_names_its_holder_and_is_status_3(esockd: RunEsockd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        status, out, err = esockd("open", "echo", f"127.0.0.1:{port}")
    assert (status, out) == (3, "")
    assert err.startswith(f"error: 127.0.0.1:{port} is already in use by ")
    assert f"(pid {os.getpid()}). Try port 0, or: ss -ltnp 'sport = :{port}'" in err


def test_what_to_do_about_an_address_in_use_is_a_hint(esockd: RunEsockd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        told = json.loads(esockd("open", "echo", f"127.0.0.1:{port}", "--json")[2])["error"]
    assert (told["code"], told["hint"]) == ("address_in_use", f"Try port 0, or: ss -ltnp 'sport = :{port}'")
    assert told["message"].startswith(f"127.0.0.1:{port} is already in use by ")
    assert "Try" not in told["message"]


@pytest.mark.parametrize("name", ["asyncio", "uvloop", "trio"])
def test_too_few_descriptors_for_the_acceptors_are_told_with_status_3(start: Callable[..., Any], name: str) -> None:
    command = start("open", "echo", "0", "--acceptors", "64", "--loop", name, after="ulimit -n 100")
    status, out, err = command.finish()
    assert (status, out) == (3, "")
    assert "Too many open files (one for each acceptor: 128)" in err
    assert err.count("\n") == 1


def test_no_listener_stays_open_when_another_cannot_be_opened(start: Callable[..., Any], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        command = start("open", "echo", f"unix:{tmp_path}/s", f"127.0.0.1:{holder.getsockname()[1]}")
        assert command.finish()[:2] == (3, "")
    assert not (tmp_path / "s").exists()


def test_json_errors_are_objects_on_stderr(esockd: RunEsockd) -> None:
    status, out, err = esockd("open", "ehco", "0", "--json")
    assert (status, out) == (2, "")
    assert json.loads(err) == {
        "schema": 1,
        "error": {"code": "unknown_handler", "message": 'unknown handler "ehco".', "hint": 'Did you mean "echo"?'},
    }


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import os\n\nimport redos\n", "app.py line 3: No module named 'redos'"),
        ("def f(:\n", "app.py line 1: SyntaxError: "),
        ("import json\njson.loads('')\n", "app.py line 2: JSONDecodeError: "),
        ("raise SystemExit(7)\n", "app.py line 1: SystemExit: 7"),
    ],
)
def test_a_module_that_fails_shows_file_and_line_and_is_status_1(
    esockd: RunEsockd, tmp_path: Path, code: str, message: str
) -> None:
    (tmp_path / "app.py").write_text(code)
    status, out, err = esockd("open", "app:handle", "0")
    assert (status, out) == (1, "")
    assert err.startswith(f'error: cannot import "app:handle": {message}')
    assert "Traceback" not in err
    assert "Traceback" in esockd("open", "app:handle", "0", "-v")[2]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("class handle: pass", "is a class, but no handler"),
        ("async def handle(): pass", "cannot be called with a connection alone"),
        ("def handle(connection): pass", "is a function, but no handler"),
    ],
)
def test_what_is_no_handler_is_refused_before_anything_is_opened(
    esockd: RunEsockd, tmp_path: Path, code: str, message: str
) -> None:
    (tmp_path / "app.py").write_text(code)
    status, out, err = esockd("open", "app:handle", "0")
    assert (status, out) == (2, "")
    assert message in err


def test_more_connections_than_open_files_are_lowered_with_a_warning(start: Callable[..., Any]) -> None:
    command = start("open", "echo", "127.0.0.1:0", "-c", "99999999999")
    command.read_port()
    status, _, err = command.stop()
    assert status == 0
    assert "warning: max_connections 99999999999 exceeds the open-file limit" in err


def test_version_is_one_line(esockd: RunEsockd) -> None:
    status, out, err = esockd("--version")
    assert (status, err) == (0, "")
    assert out.startswith("esockd 0.")
