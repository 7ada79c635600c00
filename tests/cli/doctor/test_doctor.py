"""`esockd doctor` beside a running instance, and for a file that is not run."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from tests.cli.running import ESOCKD, LIMIT_S, Answer, Instance

from esockd_cli.doctor.gathering import is_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(240)  # some run five programs, and a busy machine takes seconds for each

CONFIG = """
[listeners.edge]
handler = "forward:127.0.0.1:9"
listen = "0.0.0.0:12000"
proxy_protocol = true
access_rules = ["deny 10.0.0.0/8", "deny 10.1.0.0/16"]
tcp_options.keepalive = false
backlog = 2000000000
"""


@pytest.fixture(scope="module")
def edge() -> Iterator[Instance]:
    """An instance with two listeners that have their faults."""
    given = ("--deny", "10.0.0.0/8", "--deny", "10.1.0.0/16", "--tcp-option", "keepalive=off", "--loop", "asyncio")
    with Instance("echo", "127.0.0.1:0", "[::1]:0", "-i", "edge", *given) as instance:
        instance.read_port()
        instance.read_address()
        yield instance


def of_listeners(told: Any) -> set[tuple[str, str]]:
    """The findings that are not about the machine."""
    return {(each["check"], each["subject"]) for each in told["findings"] if " " in each["subject"]}


def test_every_running_instance_is_examined_when_nothing_is_named(edge: Instance) -> None:
    status, out, err = edge.run("doctor", "--json")
    assert (status, err) == (1, "")
    told = Answer(status, out, err).json
    both = (f"echo@127.0.0.1:{0} of edge", "echo@[::1]:0 of edge")
    assert told["instances"] == ["edge"]
    assert told["listeners"] == [*both]
    assert of_listeners(told) == {(check, one) for check in ("rules", "keepalive") for one in both}
    (loop,) = (each for each in told["findings"] if each["subject"] == "edge" and each["check"] == "event-loop")
    assert loop["mend"] == "start it without --loop asyncio"
    assert not any(each["check"] == "collector" for each in told["not_checked"])


def test_one_listener_is_examined_and_the_mend_is_a_command_that_mends(edge: Instance) -> None:
    status, out, err = edge.run("doctor", "echo@[::1]:0")
    assert status == 1
    assert "warning: echo@[::1]:0 of edge: keepalive is off" in out
    assert "19 checks of this machine and 1 listener: " in err
    assert "127.0.0.1" not in out
    mends = [line.partition("mend  ")[2] for line in out.splitlines() if "mend  esockd " in line and "-i edge" in line]
    assert mends == [
        "esockd rules remove -i edge 'echo@[::1]:0' deny 10.1.0.0/16",
        "esockd set -i edge 'echo@[::1]:0' tcp.keepalive=on",
    ]
    for mend in mends:
        environment = {**edge.environment, "PATH": f"{ESOCKD.parent}:{os.environ['PATH']}"}
        subprocess.run(mend, shell=True, check=True, capture_output=True, timeout=LIMIT_S, env=environment)
    assert of_listeners(edge.run("doctor", "echo@[::1]:0", "--json").json) == set()


def test_a_listener_that_does_not_run_is_an_error_of_its_own(edge: Instance) -> None:
    status, _, err = edge.run("doctor", "mqtt")
    assert (status, "mqtt" in err) == (4, True)


def run_doctor(folder: Path, *arguments: str) -> Answer:
    """Examine what is in a folder, where nothing runs."""
    done = subprocess.run(
        [ESOCKD, "doctor", *arguments],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
        cwd=folder,
        env={**os.environ, "ESOCKD_RUNTIME_DIR": str(folder), "COLUMNS": "200"},
    )
    return Answer(done.returncode, done.stdout, done.stderr)


def test_a_configuration_is_examined_before_it_runs(tmp_path: Path) -> None:
    (tmp_path / "edge.toml").write_text(CONFIG)
    told = run_doctor(tmp_path, "edge.toml", "--json").json
    subject = "edge 0.0.0.0:12000"
    assert of_listeners(told) == {(check, subject) for check in ("rules", "keepalive", "backlog", "proxy-trust")}
    mends = {each["check"]: each["mend"] for each in told["findings"] if each["subject"] == subject}
    assert mends["keepalive"] == "write tcp_options.keepalive = true under [listeners.edge] of edge.toml"
    assert mends["rules"] == 'take "deny 10.1.0.0/16" out of access_rules under [listeners.edge] of edge.toml'
    errors = run_doctor(tmp_path, "edge.toml", "--level", "error", "--json")
    assert errors.status == 1
    assert of_listeners(errors.json) == {("proxy-trust", subject)}


def test_errors_alone_may_count(tmp_path: Path) -> None:
    (tmp_path / "edge.toml").write_text(CONFIG.replace("0.0.0.0:", "127.0.0.1:"))
    told = run_doctor(tmp_path, "edge.toml", "--level", "error", "--json").json
    assert of_listeners(told) == set()
    assert all(each["level"] == "error" for each in told["findings"])


def test_a_configuration_that_is_wrong_is_told_as_check_tells_it(tmp_path: Path) -> None:
    (tmp_path / "edge.toml").write_text(CONFIG.replace("handler", "handlr"))
    status, out, err = run_doctor(tmp_path, "edge.toml")
    assert (status, out) == (1, "")
    assert 'edge.toml:3: unknown key "handlr"' in err


def test_the_machine_alone_is_examined_where_nothing_runs(tmp_path: Path) -> None:
    told = run_doctor(tmp_path, "--json").json
    assert (told["instances"], told["listeners"]) == ([], [])
    assert {each["subject"] for each in told["findings"]} <= {"machine", "python"}


def test_a_word_that_cannot_be_looked_up_is_no_file() -> None:
    assert not is_file("x" * 300)
