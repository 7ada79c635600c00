"""`esockd rehearse`: begun, followed, shown, committed and cancelled, by the installed program."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.cli.running import ESOCKD, LIMIT_S, Instance, connect, talk

from esockd_cli._rehearsals import describe_rehearsal
from esockd_core import RehearsalReport

if TYPE_CHECKING:
    from collections.abc import Iterator

NEXT = "make it live: esockd rehearse commit echo; forget it: esockd rehearse cancel echo\n"


@pytest.fixture(scope="module")
def running() -> Iterator[Instance]:
    """One listener."""
    with Instance("echo", "127.0.0.1:0", "-i", "edge") as instance:
        instance.read_port()
        yield instance


@pytest.fixture
def edge(running: Instance) -> Iterator[Instance]:
    """The same, left as it was found."""
    yield running
    running.run("rehearse", "cancel")
    running.run("rules", "replace", "allow all")
    running.run("set", "max_connections=1024", "max_conn_rate=none")


def come(edge: Instance, *sources: str) -> None:
    """Let clients have an answer each."""
    for source in sources:
        with connect(edge.port, source) as client:
            assert talk(client, b"hello") == b"hello"


def test_a_report_over_workers_tells_how_often_the_rehearsal_was_begun_again() -> None:
    report = RehearsalReport(
        rules=(), changes=(), state="running", reason=None, started_at=0.0, duration=600.0, elapsed=3.0, seen=7,
        refused={}, newly_refused={}, newly_admitted={}, waiting=0, examples=(), top_sources=(), begun_again=2,
    )  # fmt: skip
    assert describe_rehearsal("echo", report).splitlines()[-1] == "begun again    by 2 new workers"
    assert "begun again" not in describe_rehearsal("echo", replace(report, begun_again=0))


def test_a_rehearsal_is_begun_shown_and_committed(edge: Instance) -> None:
    begun = edge.run("rehearse", "echo", "--deny", "127.0.0.2", "--allow", "127.0.0.3", "-r", "50/s", "--detach")
    assert begun == (0, "", f"echo: the rehearsal goes on; show it: esockd rehearse echo\n{NEXT}")
    come(edge, "127.0.0.1", "127.0.0.2")
    shown = edge.run("rehearse")
    assert (shown.status, shown.err) == (0, NEXT)
    lines = shown.out.splitlines()
    assert re.fullmatch(r"rehearsal      running after \d+s, 9m \d\ds left", lines[1])
    assert [lines[0], *lines[2:10]] == [
        "listener       echo",
        "rule in front  deny 127.0.0.2",
        "rule in front  allow 127.0.0.3",
        "change         max_conn_rate: none -> 50/s",
        "clients        2",
        "would refuse   1 (closed_forbidden 1)",
        "of them served 1 (closed_forbidden 1)",
        "would let in   0",
        "top sources    127.0.0.2 (1)",
    ]
    assert re.fullmatch(r"\S+ \S+  127\.0\.0\.2:\d+ +closed_forbidden +access rule 0: deny 127\.0\.0\.2", lines[-1])
    told = edge.run("rehearse", "--json").json
    assert (told["schema"], told["listener"], told["rehearsal"]["refused"]) == (1, "echo", {"closed_forbidden": 1})
    assert edge.run("rehearse", "commit", "echo") == (
        0,
        "rule 0: deny 127.0.0.2\nrule 1: allow 127.0.0.3\nmax_conn_rate: none -> 50/s\n",
        "echo: this is live now; open connections stay\n",
    )
    with connect(edge.port, "127.0.0.2") as denied:
        assert talk(denied, b"hello") == b""
    assert edge.run("get", "max_conn_rate").out == "max_conn_rate=50/s\n"


def test_a_rehearsal_is_followed_to_its_end(edge: Instance) -> None:
    followed = edge.run("rehearse", "max_connections=1", "--for", "100ms")
    assert (followed.status, followed.err) == (0, NEXT)
    assert re.search(r"^rehearsal      over after \d+s: its 0\.1 seconds have passed$", followed.out, re.MULTILINE)
    assert "change         max_connections: 1024 -> 1\n" in followed.out
    assert edge.run("rehearse", "cancel").err == "echo: the rehearsal is cancelled; nothing was changed\n"
    assert edge.run("get", "max_connections").out == "max_connections=1024\n"


def test_ctrl_c_writes_the_report_and_leaves_the_rehearsal_going_on(edge: Instance) -> None:
    controller, terminal = pty.openpty()
    with subprocess.Popen(
        [ESOCKD, "rehearse", "echo", "--deny", "127.0.0.2"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=terminal,
        env=edge.environment,
        text=True,
    ) as process:
        os.close(terminal)
        seen = b""
        while b"0 clients, would refuse 0, " not in seen:
            seen += os.read(controller, 1024)
        come(edge, "127.0.0.2")
        while b"1 clients, would refuse 1 (closed_forbidden 1), " not in seen:
            seen += os.read(controller, 1024)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=LIMIT_S)
        os.close(controller)
    assert process.returncode == 0
    assert "would refuse   1 (closed_forbidden 1)\n" in out
    assert "rehearsal      running after " in edge.run("rehearse").out


def test_who_follows_is_told_when_somebody_else_ends_the_rehearsal(edge: Instance) -> None:
    with subprocess.Popen(
        [ESOCKD, "rehearse", "echo", "--deny", "127.0.0.2"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=edge.environment,
        text=True,
    ) as process:
        while edge.run("rehearse", "commit").status:  # until it has begun
            assert process.poll() is None
        out, err = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, err) == (0, "echo: somebody has ended this rehearsal meanwhile\n")
    assert "rule in front  deny 127.0.0.2\n" in out


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (
            [],
            1,
            "echo has no rehearsal. Begin one: esockd rehearse echo --deny 203.0.113.0/24 --for 10m",
        ),
        (["commit"], 1, "listener echo has no rehearsal."),
        (["cancel", "echo"], 1, "listener echo has no rehearsal."),
        (["commit", "max_connections=5"], 2, "commit takes a listener and nothing else."),
        (["cancel", "--deny", "all"], 2, "cancel takes a listener and nothing else."),
        (
            ["--for", "1m"],
            2,
            "it takes something to change, such as --deny 203.0.113.0/24. See: esockd rehearse -h",
        ),
        (["--deny", "all", "--for", "none"], 2, "--for none: it takes a time above 0, up to 7d."),
        (["--deny", "all", "--for", "8d"], 2, "--for 8d: it takes a time above 0, up to 7d."),
        (["--deny", "127.0.0.300"], 2, 'bad CIDR "127.0.0.300": each part of an IPv4 address is 0 to 255.'),
        (["-c", "5", "max_connections=6"], 2, "max_connections is given twice."),
        (["-c", "0"], 2, "--max-connections 0: it takes a whole number, 1 or more"),
        (["idle_timeout=5s"], 2, "idle_timeout: it cannot be rehearsed. These can: rules in front, access_rules, "),
        (["nobody", "--deny", "all"], 4, "nobody"),
    ],
)
def test_what_is_wrong_is_told(edge: Instance, arguments: list[str], status: int, message: str) -> None:
    answer = edge.run("rehearse", *arguments)
    assert (answer.status, answer.out) == (status, "")
    assert message in answer.err
    assert answer.err.startswith("error: ")


def test_one_rehearsal_at_a_time_and_no_change_of_others_overwritten(edge: Instance) -> None:
    assert edge.run("rehearse", "-c", "5", "-d", "-q").err == ""
    second = edge.run("rehearse", "-c", "6", "-d", "--json")
    assert second.status == 1
    assert json.loads(second.err)["error"]["code"] == "rehearsal_conflict"
    assert edge.run("set", "max_connections=7").status == 0
    assert edge.run("rehearse", "commit") == (
        1,
        "",
        "error: max_connections was changed from 1024 to 7 since the rehearsal began: rehearse again, or cancel it.\n",
    )


GREETING = {
    "protocol": 1, "version": "0.0.9", "name": "old", "pid": 1, "started_at": 0.0, "read_only": False,
    "methods": ["get_stats"],
}  # fmt: skip
STATUS = {
    "name": "echo", "address": "127.0.0.1:1", "state": "running", "addresses": [], "port": 1, "opened_at": 0.0,
    "handler": "x:y",
}  # fmt: skip


def answer_as_an_older_version(server: socket.socket) -> None:
    """Serve a control socket as a version does that knows no rehearsal, until it is shut down."""
    while True:
        try:
            client, _ = server.accept()
        except OSError:
            return
        with client, client.makefile("rw") as lines:
            lines.write(json.dumps({"esockd": GREETING}) + "\n")
            lines.flush()
            for line in lines:
                asked = json.loads(line)
                result = [STATUS] if asked["method"] == "listeners" else GREETING
                lines.write(json.dumps({"id": asked["id"], "result": result}) + "\n")
                lines.flush()


def test_an_instance_that_cannot_rehearse_says_so(edge: Instance) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{edge.folder}/old.sock")
        server.listen()
        answering = threading.Thread(target=answer_as_an_older_version, args=(server,))
        answering.start()
        try:
            answers = [edge.run("rehearse", *words, "-i", "old") for words in ([], ["--deny", "all"], ["commit"])]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            answering.join()
            Path(edge.folder, "old.sock").unlink()
    hint = "Start it again with the version of this command."
    assert {*answers} == {(1, "", f"error: old runs esockd-core 0.0.9, which cannot rehearse. {hint}\n")}
