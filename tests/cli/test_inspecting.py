"""The commands that look at a running instance and change who may come in."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest
from tests.cli.running import ESOCKD, LIMIT_S, Instance, connect, talk

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def edge() -> Iterator[Instance]:
    """One listener."""
    with Instance("echo", "127.0.0.1:0", "-i", "edge", "--deny", "127.0.0.9") as instance:
        instance.read_port()
        yield instance


@pytest.fixture(scope="module")
def pair() -> Iterator[Instance]:
    """Two listeners of one name, one of them on IPv6."""
    with Instance("echo", "127.0.0.1:0", "[::1]:0", "-i", "pair") as instance:
        instance.read_port()
        instance.read_address()
        yield instance


def test_ps_lists_instances_and_their_listeners(edge: Instance) -> None:
    status, out, err = edge.run("ps")
    assert (status, err) == (0, "")
    head, line = out.splitlines()
    assert head.split() == ["INSTANCE", "PID", "VERSION", "WORKERS", "LISTENER", "ADDRESS", "STATE", "OPEN", "FOR"]
    expected = rf"edge +{edge.process.pid} +\S+ +- +echo +127\.0\.0\.1:{edge.port} +running +\S+"
    assert re.fullmatch(expected, line)
    (instance,) = edge.run("ps", "--json").json["instances"]
    assert (instance["name"], instance["pid"]) == ("edge", edge.process.pid)
    assert [each["name"] for each in instance["listeners"]] == ["echo"]


def test_stats_is_a_snapshot_of_all_listeners_or_of_one_in_detail(edge: Instance) -> None:
    with connect(edge.port) as client:
        assert talk(client, b"hello") == b"hello"
        status, out, err = edge.run("stats")
        assert (status, err) == (0, "")
        assert re.fullmatch(
            rf"echo +127\.0\.0\.1:{edge.port} +running +1/\d+ +1 +0 +5 B +5 B +\S+ +0", out.splitlines()[1]
        )
        details = edge.run("stats", "echo").out
        assert re.search(r"^connections +1 of \d+$", details, re.MULTILINE)
        assert re.search(r"^bytes in +5 B$", details, re.MULTILINE)
        told = edge.run("stats", f"echo@127.0.0.1:{edge.port}", "--json").json
        assert told["schema"] == 1
        assert told["listeners"][0]["stats"]["bytes_in"] == 5


def test_stats_writes_lines_with_a_count(edge: Instance) -> None:
    status, out, _ = edge.run("stats", "-n", "0.1", "-c", "22")
    assert status == 0
    lines = out.splitlines()
    assert len(lines) == 24
    assert [number for number, line in enumerate(lines) if line.startswith("TIME ")] == [0, 21]


def test_stats_w_is_lines_where_there_is_no_terminal(edge: Instance) -> None:
    status, out, _ = edge.run("stats", "-w", "-c", "1")
    assert (status, len(out.splitlines())) == (0, 2)


def test_connections_are_listed_and_killed(edge: Instance) -> None:
    with connect(edge.port) as one, connect(edge.port, "127.0.0.2") as two:
        assert (talk(one, b"a"), talk(two, b"bc")) == (b"a", b"bc")
        head, *lines = edge.run("connections", "list").out.splitlines()
        assert head.split() == ["ID", "CLIENT", "OPEN", "FOR", "STATE", "TLS", "IN", "OUT", "PROXY"]
        assert {line.split()[1] for line in lines} >= {
            f"127.0.0.1:{one.getsockname()[1]}",
            f"127.0.0.2:{two.getsockname()[1]}",
        }
        told = edge.run("connections", "list", "echo", "--from", "127.0.0.2", "--json").json
        (connection,) = told["connections"]
        assert (connection["peername"][0], connection["bytes_in"]) == ("127.0.0.2", 2)
        assert edge.run("connections", "kill", str(connection["id"])) == (0, "", "echo: 1 connection closed\n")
        assert talk(two, b"d") == b""
        assert edge.run("connections", "kill", "echo", "127.0.0.2") == (
            1,
            "",
            "error: echo has no open connection from 127.0.0.2.\n",
        )
        assert edge.run("connections", "kill", "all", "--json").json["killed"] >= 1
        assert talk(one, b"d") == b""
    assert edge.run("connections", "list") == (0, "", "echo has no open connection\n")


def test_deny_and_allow_are_live_and_say_who_stays(edge: Instance) -> None:
    with connect(edge.port, "127.0.0.3") as before:
        assert talk(before, b"a") == b"a"
        assert edge.run("deny", "127.0.0.3/32") == (
            0,
            "",
            (
                'echo: "deny 127.0.0.3/32" is the first rule now\n'
                "1 connection stays open: esockd connections kill echo 127.0.0.3/32\n"
            ),
        )
        assert talk(before, b"b") == b"b"
        with connect(edge.port, "127.0.0.3") as client:
            assert talk(client, b"c") == b""
    assert edge.run("deny", "echo", "127.0.0.3") == (
        1,
        "",
        (
            'error: echo has the rule "deny 127.0.0.3" already, at 0. '
            "Remove it first: esockd rules remove echo deny 127.0.0.3\n"
        ),
    )
    assert edge.run("allow", "echo", "127.0.0.3", "--json").json["rule"] == "allow 127.0.0.3"
    with connect(edge.port, "127.0.0.3") as client:
        assert talk(client, b"d") == b"d"
    rejects = edge.run("rejects", "echo").out.splitlines()
    assert rejects[0].split() == ["TIME", "CLIENT", "STAGE", "REASON"]
    assert re.fullmatch(r"\S+ \S+ +127\.0\.0\.3:\d+ +closed_forbidden +.*deny 127\.0\.0\.3.*", rejects[-1])
    told = edge.run("rejects", "--most", "1", "--json").json["rejects"]
    assert [each["stage"] for each in told] == ["closed_forbidden"]
    assert re.search(r"^ +\d+ +0 +127\.0\.0\.3$", edge.run("top-sources").out, re.MULTILINE)
    assert {each["source"] for each in edge.run("top-sources", "--json").json["sources"]} >= {"127.0.0.3"}


def test_every_change_is_an_audit_line_in_the_log_of_the_instance() -> None:
    with Instance("echo", "127.0.0.1:0") as instance:
        port = instance.read_port()
        assert instance.read_log() == "serving on uvloop; Ctrl-C stops; watch it: esockd top -i echo"
        assert instance.run("deny", "2001:db8::/32").status == 0
        assert re.fullmatch(
            r"info: listener echo on 127\.0\.0\.1:0: deny by uid \d+, pid \d+: "
            r"access_rules: no rule 'deny 2001:db8::/32' -> the first one",
            instance.read_log(),
        )
        assert port


def test_rules_are_listed_inserted_removed_replaced_and_tested(edge: Instance) -> None:
    assert edge.run("rules", "replace", "deny", "10.0.0.1", "allow 10.0.0.0/8", "deny", "all") == (
        0,
        "",
        "echo: 3 rules in force now\n",
    )
    assert edge.run("rules", "insert", "echo", "1", "deny", "2001:db8::/32").status == 0
    assert edge.run("rules", "list").out == (
        "  0  deny 10.0.0.1\n  1  deny 2001:db8::/32\n  2  allow 10.0.0.0/8\n  3  deny all\n"
        "  -  allow whoever matches none\n"
    )
    assert edge.run("rules", "test", "echo", "10.1.2.3") == (0, '10.1.2.3: allow: rule 2 is "allow 10.0.0.0/8"\n', "")
    assert edge.run("rules", "test", "2001:db8::1") == (1, '2001:db8::1: deny: rule 1 is "deny 2001:db8::/32"\n', "")
    assert edge.run("rules", "remove", "1").err == 'echo: "deny 2001:db8::/32" is removed\n'
    assert edge.run("rules", "remove", "echo", "deny all").status == 0
    assert edge.run("rules", "remove", "deny", "all") == (1, "", 'error: echo has no rule "deny all".\n')
    assert edge.run("rules", "insert", "9", "deny", "all").err == "error: echo has 2 rules: a position is 0 to 2.\n"
    assert edge.run("rules", "replace", "echo", "-", given="# nobody\ndeny 10.0.0.0/8\n\n").status == 0
    assert edge.run("rules", "list", "--json").json["rules"] == ["deny 10.0.0.0/8"]
    assert edge.run("rules", "replace", "-", given="deny 10.0.0.1\ndeny 10.0.0.0/33\n") == (
        2,
        "",
        'error: stdin:2: bad CIDR "10.0.0.0/33": an IPv4 prefix length is 0 to 32.\n',
    )


def test_explain_says_stage_by_stage_what_would_happen(edge: Instance) -> None:
    assert edge.run("rules", "replace", "deny", "10.0.0.0/8").status == 0
    status, out, err = edge.run("explain", "echo", "10.1.2.3")
    assert (status, err) == (1, "")
    assert out.splitlines()[0] == "10.1.2.3 is refused: access rules"
    assert re.search(r"^access rules +refuse +", out, re.MULTILINE)
    status, out, _ = edge.run("explain", "2001:db8::1")
    assert (status, out.splitlines()[0]) == (0, "2001:db8::1 is let in")
    told = edge.run("explain", "10.1.2.3", "--json")
    assert (told.status, told.json["decided_by"]["name"], told.json["client"]) == (1, "access rules", "10.1.2.3")
    assert edge.run("explain", "fe80::zz").status == 2


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("deny", "10.0.0.1/33"), 2, 'bad CIDR "10.0.0.1/33": an IPv4 prefix length is 0 to 32.'),
        (("stats", "ehco"), 4, 'the instance edge has no listener "ehco". Did you mean "echo"?'),
        (("deny", "ehco", "10.0.0.1"), 4, 'the instance edge has no listener "ehco". Did you mean "echo"?'),
        (("rules", "insert", "x", "deny", "all"), 2, 'bad index "x": it takes a whole number, 0 or more.'),
        (("rules", "insert", "0"), 2, "it takes [LISTENER] INDEX RULE, with one rule."),
        (("connections", "kill", "12345678"), 1, "echo has no connection 12345678."),
    ],
)
def test_what_is_wrong_is_one_line_and_a_status(
    edge: Instance, arguments: tuple[str, ...], status: int, message: str
) -> None:
    assert edge.run(*arguments) == (status, "", f"error: {message}\n")


def test_errors_are_json_with_code_message_and_hint(edge: Instance) -> None:
    status, out, err = edge.run("stats", "ehco", "--json")
    assert (status, out) == (4, "")
    assert err == (
        '{"schema": 1, "error": {"code": "unknown_listener", '
        '"message": "the instance edge has no listener \\"ehco\\".", "hint": "Did you mean \\"echo\\"?"}}\n'
    )


def test_an_instance_that_does_not_run_is_status_4(edge: Instance) -> None:
    nowhere = f"{edge.folder}/nowhere"
    message = f"error: no running esockd instance (looked in {nowhere}). Start one: esockd open echo 5000\n"
    for command in (("ps",), ("stats",), ("explain", "10.0.0.1")):
        assert edge.run(*command, ESOCKD_RUNTIME_DIR=nowhere) == (4, "", message)
    status, _, err = edge.run("stats", "-i", "other")
    assert (status, err) == (
        4,
        f"error: no program has the control socket {edge.folder}/other.sock. Start one: esockd open echo 5000\n",
    )


def test_listeners_of_one_name_are_told_apart_by_address(pair: Instance) -> None:
    status, out, err = pair.run("explain", "echo", "10.0.0.1")
    assert (status, out) == (2, "")
    assert err == (
        'error: 2 listeners have the name "echo": echo@127.0.0.1:0, echo@[::1]:0. Name one, such as echo@127.0.0.1:0\n'
    )
    assert pair.run("explain", "echo@[::1]:0", "2001:db8::1").status == 0
    assert pair.run("explain", f"echo@127.0.0.1:{pair.port}", "10.0.0.1").status == 0
    assert pair.run("deny", "echo@[::1]:0", "::1").status == 0
    assert pair.run("rules", "list", "echo@127.0.0.1:0", "--json").json["rules"] == []
    assert pair.run("connections", "list", "echo@[::1]:0").err == "echo@[::1]:0 has no open connection\n"
    assert re.search(r"^echo +\[::1\]:\d+ +running ", pair.run("stats").out, re.MULTILINE)


def test_the_instance_that_has_the_listener_is_chosen_where_several_run(edge: Instance) -> None:
    with Instance("discard", "127.0.0.1:0", folder=edge.folder) as other:
        other.read_port()
        assert edge.run("stats") == (2, "", "error: 2 instances run: discard, edge. Choose one: -i discard\n")
        assert edge.run("rules", "list", "discard").status == 0
        assert edge.run("rules", "list", "-i", "edge").status == 0
        assert edge.run("ps").out.count("127.0.0.1:") == 2


def test_a_pipe_that_is_closed_early_ends_a_command_quietly(edge: Instance) -> None:
    ended = subprocess.run(
        ["sh", "-c", '"$0" stats -n 0.1 | head -n 1', str(ESOCKD)],
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
        env=edge.environment,
    )
    assert (ended.stdout.count("\n"), ended.stderr) == (1, "")
