"""A forked command does what a started one does, which is what lets the tests fork."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from tests.cli.forked import Forkserver
from tests.cli.running import ESOCKD, LIMIT_S, Instance, connect, run_esockd, talk

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        (("--version",), ""),
        ((), ""),
        (("open", "static:@greeting", "80x"), ""),
        (("cidr", "lint", "--json"), "deny 10.0.0.0/8\ndeny 10.1.0.0/16\n"),
        (("cidr", "lint"), "deny 10.0.0.0/8\n" * 5_000),  # reads and writes more than pipes hold
        (("check", "/dev/stdin"), "[listeners]\n"),  # refuses a pipe
        (("stats",), ""),
        (("open", "--help"), ""),
    ],
)
def test_a_forked_command_writes_and_ends_as_a_started_one(
    tmp_path: Path, arguments: tuple[str, ...], given: str
) -> None:
    own = {"COLUMNS": "60", "ESOCKD_RUNTIME_DIR": str(tmp_path)}
    started = subprocess.run(
        [ESOCKD, *arguments],
        input=given,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
        cwd=tmp_path,
        env={**os.environ, **own},
    )
    forked = run_esockd(*arguments, given=given, cwd=tmp_path, **own)
    assert forked == (started.returncode, started.stdout, started.stderr)


def test_commands_that_wait_keep_no_other_waiting() -> None:
    with Instance("echo", "127.0.0.1:0") as instance, ThreadPoolExecutor() as threads:
        with connect(instance.read_port()) as client:
            assert talk(client, b"hello") == b"hello"
            draining = threads.submit(instance.run, "drain")
            while "draining" not in instance.run("stats", "--json").out:
                assert not draining.done()
        assert draining.result().status == 0


def test_what_has_not_ended_ends_with_the_one_that_forks(tmp_path: Path) -> None:
    forks, path = Forkserver(), tmp_path / "s"
    with ThreadPoolExecutor() as threads:
        serving = threads.submit(
            forks.run, ESOCKD, "open", "echo", f"unix:{path}", given="", timeout=LIMIT_S, env=os.environ, cwd=tmp_path
        )
        while not path.exists():
            assert not serving.done()
        forks.close()
        with pytest.raises(RuntimeError, match="has ended"):
            serving.result()
    while is_served(path):
        time.sleep(0.01)


def is_served(path: Path) -> bool:
    """Whether somebody listens there."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0
