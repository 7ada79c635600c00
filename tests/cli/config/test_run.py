"""`esockd run`: many listeners from one file, run as `esockd open` runs them."""

from __future__ import annotations

import json
import signal
import socket
from typing import TYPE_CHECKING, Any

from tests.cli.config.conftest import ECHO
from tests.cli.running import connect, talk

if TYPE_CHECKING:
    from pathlib import Path

Run = Any

MANY = """\
[esockd]
loop = "LOOP"
instance = "site"
[listeners.echo]
handler = "echo"
listen = ["127.0.0.1:0", "[::1]:0"]
max_connections = 7
[listeners.hello]
handler = "static:hello"
listen = "127.0.0.1:0"
"""


def test_each_address_of_each_listener_is_served_until_a_signal(run: Run, loop: str) -> None:
    edge = run(MANY.replace("LOOP", loop), listeners=3)
    with connect(edge.port) as client:
        assert talk(client, b"one") == b"one"
    with connect(int(edge.addresses[2].rpartition(":")[2])) as client:
        assert client.recv(5) == b"hello"
    assert edge.options("hello")["max_connections"] == 1024
    listed = edge.run("ps", "--json").json
    assert {each["name"] for each in listed["instances"]} == {"site"}
    status, out, err = edge.stop()
    assert (status, out) == (0, "")
    told = [line for line in err.splitlines() if "accepted" in line]
    assert [line.partition(":")[0] for line in told] == ["echo 127.0.0.1", "echo [", "hello 127.0.0.1"]


def test_json_lines_tell_what_listens_and_the_summary_of_all(run: Run) -> None:
    edge = run(ECHO, "--json", listeners=0)
    event = json.loads(edge.process.stdout.readline())
    assert (event["event"], event["listener"], event["loop"]) == ("listening", "echo", "uvloop")
    status, out, err = edge.stop()
    assert (status, err) == (0, "")
    events = [json.loads(line) for line in out.splitlines()]
    assert [each["event"] for each in events] == ["stopping", "stopped"]
    assert [each["listener"] for each in events[-1]["listeners"]] == ["echo"]


def test_the_instance_has_the_name_of_the_file_or_the_one_it_is_given(run: Run) -> None:
    edge = run()
    assert edge.run("ps", "--json").json["instances"][0]["name"] == "edge"
    edge.stop()
    other = run(ECHO, "-i", "mine")
    assert other.run("ps", "--json").json["instances"][0]["name"] == "mine"
    assert other.stop().status == 0


def test_a_broken_file_is_refused_with_all_its_problems_and_nothing_is_opened(run: Run) -> None:
    edge = run(f"{ECHO}max_conections = 5\nidle_timeout = 3\n", listeners=0)
    assert edge.wait() == (
        3,
        "",
        (
            'error: edge.toml:4: unknown key "max_conections". Did you mean "max_connections"?\n'
            "error: edge.toml:5: idle_timeout = 3: it takes a duration such as 30s, more than 0, or none. "
            'Did you mean "3s"?\n'
        ),
    )


def test_an_address_that_is_taken_is_status_3_and_closes_those_that_were_open(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        edge = run(f'{ECHO}[listeners.two]\nhandler = "echo"\nlisten = "{address}"\n', listeners=0)
        status, out, err = edge.wait()
    assert (status, out) == (3, "")
    assert err.splitlines()[-1].startswith(f"error: {address} is already in use by")


def test_log_format_json_of_the_file_holds_for_every_line(run: Run) -> None:
    edge = run(f'[esockd]\nlog_format = "json"\n{ECHO}')
    edge.process.send_signal(signal.SIGHUP)
    edge.read_log_until("changes nothing")
    _, _, err = edge.stop()
    assert all(json.loads(line)["message"] for line in err.splitlines())


def test_no_control_opens_no_socket(run: Run) -> None:
    edge = run(f"[esockd]\nno_control = true\n{ECHO}")
    assert edge.run("ps").status == 4
    assert edge.stop().status == 0


def test_handlers_are_imported_from_the_folder_that_the_file_names(run: Run, tmp_path: Path) -> None:
    (tmp_path / "apps").mkdir()
    (tmp_path / "apps" / "app.py").write_text(
        "async def handle(connection):\n    await connection.send(b'from the app')\n"
    )
    edge = run('[esockd]\napp_dir = "apps"\n' + ECHO.replace('"echo"', '"app:handle"'))
    with connect(edge.port) as client:
        assert client.recv(12) == b"from the app"
    assert edge.stop().status == 0


def test_it_ends_when_its_last_listener_is_closed(run: Run) -> None:
    edge = run()
    assert edge.run("close", "echo").status == 0
    assert edge.wait().status == 0


SHOWN = """\
[listeners.echo]
handler = "forward:127.0.0.1:9"
listen = "127.0.0.1:0"
connect_timeout = "3s"
max_connections = 7
proxy_protocol = "use"
proxy_trust = ["10.0.0.0/8"]
linger_timeout = "1s"
"""


def test_config_show_tells_what_is_in_force_and_where_each_value_comes_from(run: Run) -> None:
    edge = run(SHOWN)
    assert edge.run("set", "max_connections=8", "idle_timeout=3s").status == 0
    status, out, err = edge.run("config", "show")
    assert (status, err) == (0, "")
    pairs = [line.partition(" = ") for line in out.splitlines()]
    shown = {key: tuple(part.strip() for part in rest.split("# ", 1)) for key, equals, rest in pairs if equals}
    assert out.splitlines()[0] == "[esockd]"
    assert "[listeners.echo]  # 127.0.0.1:0" in out
    expected = {
        "loop": ("auto", "default"),
        "handler": ("forward:127.0.0.1:9", "edge.toml:2"),
        "listen": ("127.0.0.1:0", "edge.toml:3"),
        "connect_timeout": ('"3s"', "edge.toml:4"),
        "max_connections": ("8", "live change; 7 in edge.toml:5"),
        "idle_timeout": ("3s", "live change; none by default"),
        "proxy_protocol_options.policy": ("use", "edge.toml:6"),
        "proxy_trust": ("10.0.0.0/8", "edge.toml:7"),
        "linger_timeout": ("1s", "edge.toml:8"),
        "send_timeout": ("30s", "default"),
    }
    assert {key: shown.get(key) for key in expected} == expected
    told = edge.run("config", "show", "echo", "--json").json
    assert told["values"][0] == {
        "listener": "echo",
        "address": "127.0.0.1:0",
        "key": "handler",
        "value": "forward:127.0.0.1:9",
        "source": "edge.toml:2",
    }
    assert edge.run("config", "show", "nobody").status == 4
