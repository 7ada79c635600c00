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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["echo", "0", "--deny", "10.0.0.1/33"], 'bad CIDR "10.0.0.1/33": an IPv4 prefix length is 0 to 32.'),
        (["echo", "fe80::1:5000"], "an IPv6 address needs brackets. Did you mean"),
        (["echo", "[fe80::1]:99999"], 'bad address "[fe80::1]:99999": port 99999 is out of range'),
        (["echo", "0", "--max-conections", "5"], "no such option: --max-conections. Did you mean --max-connections?"),
        (["echo", "0", "--idle-timeout", "5"], '--idle-timeout: bad duration "5": a number and one of the units'),
        (["echo", "0", "--max-conn-rate", "fast"], "--max-conn-rate: 'fast' is not a rate"),
        (["echo", "0", "--max-connections", "many"], '--max-connections: bad number "many"'),
        (["echo", "0", "--max-connections", "0"], "max_connections is 0; it takes a whole number, 1 or more"),
        (["echo", "0", "--acceptors", "65"], "acceptors is 65; it takes a whole number, 1 to 64"),
        (["echo", "0", "--tcp-option", "nodely=off"], 'unknown key "nodely". Did you mean "nodelay"?'),
        (["echo", "0", "--tcp-option", "nodelay"], '"nodelay" has no "="'),
        (["echo", "0", "--tcp-option", "backlog=5", "--backlog", "6"], "backlog is given twice"),
        (["echo", "0", "--unix-mode", "600"], "no address is one"),
        (["echo", "unix:s", "--unix-mode", "888"], 'bad mode "888"'),
        (["echo", "0", "--refuse-with", "bye"], '"bye" is none of fin, rst, static:TEXT and static:@FILE'),
        (["echo", "0", "--loop", "curio"], "curio"),
        (["echo", "127.0.0.1:0", "127.0.0.1:0"], "open already"),
        (["ehco", "0"], 'unknown handler "ehco". Did you mean "echo"?'),
        (["static:@nowhere", "0"], 'static: cannot read "nowhere": No such file'),
        (["nowhere:handle", "0"], 'cannot import "nowhere:handle": there is no module "nowhere"'),
        (["json:handle", "0"], 'cannot import "json:handle": it has no "handle"'),
        (["json:loads", "0"], '"json:loads" is a function, but no handler'),
        (["echo"], "missing argument 'LISTEN...'"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_status_2(
    start: Callable[..., Any], arguments: list[str], message: str
) -> None:
    status, out, err = start("open", *arguments).finish()
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


def test_an_address_in_use_names_its_holder_and_is_status_3(start: Callable[..., Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        status, out, err = start("open", "echo", f"127.0.0.1:{port}").finish()
    assert (status, out) == (3, "")
    assert err.startswith(f"error: 127.0.0.1:{port} is already in use by ")
    assert f"(pid {os.getpid()}). Try port 0, or: ss -ltnp 'sport = :{port}'" in err


def test_no_listener_stays_open_when_another_cannot_be_opened(start: Callable[..., Any], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        command = start("open", "echo", f"unix:{tmp_path}/s", f"127.0.0.1:{holder.getsockname()[1]}")
        assert command.finish()[:2] == (3, "")
    assert not (tmp_path / "s").exists()


def test_json_errors_are_objects_on_stderr(start: Callable[..., Any]) -> None:
    status, out, err = start("open", "ehco", "0", "--json").finish()
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
    start: Callable[..., Any], tmp_path: Path, code: str, message: str
) -> None:
    (tmp_path / "app.py").write_text(code)
    status, out, err = start("open", "app:handle", "0").finish()
    assert (status, out) == (1, "")
    assert err.startswith(f'error: cannot import "app:handle": {message}')
    assert "Traceback" not in err
    assert "Traceback" in start("open", "app:handle", "0", "-v").finish()[2]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("class handle: pass", "is a class, but no handler"),
        ("async def handle(): pass", "cannot be called with a connection alone"),
        ("def handle(connection): pass", "is a function, but no handler"),
    ],
)
def test_what_is_no_handler_is_refused_before_anything_is_opened(
    start: Callable[..., Any], tmp_path: Path, code: str, message: str
) -> None:
    (tmp_path / "app.py").write_text(code)
    status, out, err = start("open", "app:handle", "0").finish()
    assert (status, out) == (2, "")
    assert message in err


def test_more_connections_than_open_files_are_lowered_with_a_warning(start: Callable[..., Any]) -> None:
    command = start("open", "echo", "127.0.0.1:0", "-c", "99999999999")
    command.read_port()
    status, _, err = command.stop()
    assert status == 0
    assert "warning: max_connections 99999999999 exceeds the open-file limit" in err


def test_version_is_one_line(start: Callable[..., Any]) -> None:
    status, out, err = start("--version").finish()
    assert (status, err) == (0, "")
    assert out.startswith("esockd 0.")


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_shows_addresses_as_they_are_written(start: Callable[..., Any], option: str) -> None:
    status, out, err = start("open", option).finish()
    assert (status, err) == (0, "")
    assert "[::1]:5000" in out
    assert "static:@FILE" in out
