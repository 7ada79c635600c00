"""The commands that show and change the options and the life of a running listener."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from tests.cli.running import Instance, connect, talk
from tests.ports import steady_address, steady_port

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def edge() -> Iterator[Instance]:
    """One listener."""
    with Instance("echo", steady_address(), "-i", "edge") as instance:
        instance.read_port()
        yield instance


def test_get_shows_all_options_a_group_or_single_ones(edge: Instance) -> None:
    every = edge.run("get").out.splitlines()
    assert {"shutdown_timeout=5s", "tcp.nodelay=on", "refuse_with=fin", "max_conn_rate=none"} <= {*every}
    assert edge.run("get", "echo", "read_buffer_bytes", "tcp.keepalive-count").out == (
        "read_buffer_bytes=64KiB\ntcp.keepalive_count=9\n"
    )
    group = edge.run("get", "tcp").out.splitlines()
    assert group
    assert all(line.startswith("tcp.") for line in group)
    assert edge.run("get", "send_timeout", "--json").json["options"] == {"send_timeout": 30.0}
    assert edge.run("get", "echo", "sned_timeout") == (
        2,
        "",
        'error: there is no option "sned_timeout". Did you mean "send_timeout"?\n',
    )


def test_a_dry_run_says_what_each_change_takes_and_changes_nothing(edge: Instance) -> None:
    settings = ("max_connections=77", "tcp.nodelay=off", "tcp.reuse_port=on")
    assert edge.run("set", "echo", *settings, "--dry-run") == (
        0,
        (
            "max_connections: 1024 -> 77 (live)\n"
            "tcp.reuse_port: off -> on (needs reopen)\n"
            "tcp.nodelay: on -> off (new connections)\n"
        ),
        "nothing was changed: this was a dry run\n",
    )
    told = edge.run("set", *settings, "--dry-run", "--json").json
    assert (told["dry_run"], told["needs_reopen"]) == (True, ["tcp.reuse_port"])
    assert [each["effect"] for each in told["changes"]] == ["live", "reopen", "new connections"]
    assert edge.run("get", "max_connections").out == "max_connections=1024\n"


def test_set_changes_all_or_nothing(edge: Instance) -> None:
    assert edge.run("set", "idle_timeout=2m", "access_rules=deny 10.0.0.1, allow 10.0.0.0/8") == (
        0,
        "access_rules: - -> deny 10.0.0.1, allow 10.0.0.0/8 (live)\nidle_timeout: none -> 2m (live)\n",
        "",
    )
    assert edge.run("set", "idle_timeout=2m") == (0, "", "echo has these values already\n")
    assert edge.run("set", "echo", "max_connections=88", "reuse_port=on") == (
        5,
        "",
        (
            "error: tcp.reuse_port: this takes new listening sockets; nothing was changed. "
            "Say --reopen; connections stay open.\n"
        ),
    )
    assert edge.run("get", "max_connections").out == "max_connections=1024\n"
    with connect(edge.port) as client:
        assert talk(client, b"a") == b"a"
        assert edge.run("set", "max_connections=88", "reuse_port=on", "--reopen").status == 0
        assert talk(client, b"b") == b"b"
    with connect(edge.port) as client:
        assert talk(client, b"c") == b"c"
    assert edge.run("set", "max_connections=none", "access_rules=", "idle_timeout=none").status == 0


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("max_connections=0", "max_connections=0: it takes a whole number, 1 or more, or none."),
        (
            "idle_timeout=30",
            'idle_timeout=30: it takes a duration such as 30s, more than 0, or none. Did you mean "30s"?',
        ),
        ("max_conections=5", 'there is no option "max_conections". Did you mean "max_connections"?'),
        ("load_hook=app:f", "load_hook=app:f: only a program can give it."),
        ("access_rules=deny 10.0.0.0/33", None),
    ],
)
def test_set_refuses_what_the_table_of_options_does(edge: Instance, setting: str, message: str | None) -> None:
    status, out, err = edge.run("set", "echo", setting)
    assert (status, out) == (2, "")
    assert message is None or err == f"error: {message}\n"


def test_set_without_values_says_how(edge: Instance) -> None:
    assert edge.run("set", "echo") == (
        2,
        "",
        "error: it takes KEY=VALUE, such as max_connections=5000. See what is in force: esockd get\n",
    )


def test_suspend_lets_clients_wait_until_resume(edge: Instance) -> None:
    assert edge.run("suspend") == (
        0,
        "",
        "echo is suspended: new clients wait in the kernel's queue until esockd resume echo\n",
    )
    with connect(edge.port) as client:
        client.sendall(b"hello")
        told = edge.run("explain", "127.0.0.1")
        assert (told.status, told.out.splitlines()[0]) == (1, "127.0.0.1 has to wait: listener")
        assert edge.run("resume", "echo", "--json").json["state"] == "running"
        assert client.recv(5) == b"hello"


def test_reopen_moves_and_connections_stay(edge: Instance) -> None:
    with connect(edge.port) as before:
        assert talk(before, b"a") == b"a"
        status, out, err = edge.run("reopen", "--address", "[::1]:0")
        assert (status, err) == (0, "")
        assert out.startswith("echo listening on [::1]:")
        with socket.create_connection(("::1", int(out.rpartition(":")[2])), timeout=20) as client:
            assert talk(client, b"b") == b"b"
        assert talk(before, b"c") == b"c"
    status, out, _ = edge.run("reopen", "--address", f"127.0.0.1:{edge.port}")
    assert (status, out) == (0, f"echo listening on 127.0.0.1:{edge.port}\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, _, err = edge.run("reopen", "-a", f"127.0.0.1:{port}")
        assert status == 3
        assert err.startswith(f"error: 127.0.0.1:{port} is already in use")


def test_drain_ends_connections_within_its_timeout_and_the_process_with_status_0(edge: Instance) -> None:
    with Instance("echo", "127.0.0.1:0", "-i", "other") as other:
        with connect(other.read_port()) as client:
            assert talk(client, b"a") == b"a"
            assert other.run("drain", "echo", "--timeout", "5", "-y") == (
                2,
                "",
                'error: --timeout 5: it takes a duration such as 30s, 0 or more, or none. Did you mean "5s"?\n',
            )
            assert other.run("drain", "--rate", "0/s").status == 2
            assert other.run("drain", "--timeout", "100ms", "--rate", "200/s", "-y") == (
                0,
                "",
                "echo is draining 1 open connection\necho is closed\n",
            )
            assert talk(client, b"b") == b""
        assert other.wait().status == 0


def test_close_closes_one_listener_of_several() -> None:
    port = steady_port()
    with Instance("echo", f"127.0.0.1:{port}", "[::1]:0") as instance:
        assert instance.read_port() == port
        assert instance.run("close", f"echo@127.0.0.1:{port}", "--json").json["state"] == "closed"
        with pytest.raises(ConnectionRefusedError):
            connect(port)
        assert instance.run("close") == (0, "", "echo is closed\n")
        assert instance.wait().status == 0
