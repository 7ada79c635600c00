"""`esockd bench` as it is installed, against `esockd open echo` and others."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trustme
from tests.cli.running import ESOCKD, Answer, Instance
from tests.ports import steady_port

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT_S = 180.0  # each run starts three programs, and a busy machine takes seconds for each
pytestmark = pytest.mark.timeout(240)

TRANSPORTS = ("127.0.0.1:0", "tls://127.0.0.1:0", "udp://127.0.0.1:0", "dtls://127.0.0.1:0")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    """An echo on every transport."""
    folder = tmp_path_factory.mktemp("server")
    cert = folder / "cert.pem"
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(cert)
    with Instance("echo", *TRANSPORTS, "unix:echo.sock", "--cert", str(cert), cwd=folder) as instance:
        instance.addresses = {  # type: ignore[attr-defined]
            scheme: instance.read_address() for scheme in ("tcp", "tls", "udp", "dtls", "unix")
        }
        yield instance


def run(server: Instance, *arguments: str) -> Answer:
    """Run the command beside its server."""
    done = subprocess.run(
        [ESOCKD, "bench", *arguments],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S, check=False, env=server.environment,
        cwd=server._cwd,
    )  # fmt: skip
    return Answer(done.returncode, done.stdout, done.stderr)


def address_of(server: Instance, scheme: str) -> str:
    """Where a transport is served."""
    address: str = server.addresses[scheme]  # type: ignore[attr-defined]
    return address


@pytest.mark.parametrize("scheme", ["tcp", "tls", "udp", "dtls", "unix"])
def test_an_echo_is_loaded_over_every_transport(server: Instance, scheme: str) -> None:
    target = address_of(server, scheme)
    answer = run(server, target, "-n", "100", "-c", "6", "-s", "200", "--timeout", "20s", "--json")
    assert (answer.status, answer.err) == (0, "")
    told = answer.json
    assert (told["schema"], told["target"], told["mode"], told["size"]) == (1, target, "echo", 200)
    assert (told["completed"], told["errors"], told["processes"]) == (100, {}, max(2, told["processes"]))
    assert told["latency"]["count"] == 100
    assert 0 < told["latency"]["p50"] <= told["latency"]["p99"] <= told["latency"]["max"]
    assert told["lateness"] is None


def test_the_report_for_people_and_the_distribution(server: Instance, tmp_path: Path) -> None:
    file = tmp_path / "latencies.hgrm"
    target = address_of(server, "tcp")
    given = ("-n", "60", "-r", "600/s", "-c", "4", "-p", "3", "-t", "20s", "--histogram", str(file))
    status, out, err = run(server, target, *given)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"{target}: echo, 4 connections, 3 processes on uvloop, 600/s"
    assert lines[1].startswith("messages    60 in ")
    assert [line.split()[0] for line in lines[2:]] == ["latency", "connecting", "sent", "errors"]
    assert lines[-1] == "errors      none"
    assert " Total count    =           60]" in file.read_text()


def test_connecting_and_holding(server: Instance) -> None:
    target = address_of(server, "tcp")
    made = run(server, target, "--mode", "connect", "-n", "50", "-c", "5", "-t", "20s", "--json").json
    assert (made["completed"], made["errors"], made["connecting"]["count"]) == (50, {}, 50)
    held = run(server, target, "--mode", "idle", "-c", "50", "-d", "500ms", "-t", "20s", "--json").json
    assert (held["completed"], held["connected"], held["errors"], held["latency"]) == (50, 50, {}, None)


def test_what_went_wrong_is_status_1_and_told_by_its_kind(server: Instance) -> None:
    status, out, err = run(server, f"127.0.0.1:{steady_port()}", "-d", "10s")
    assert (status, err) == (1, "")
    assert "  refused" in out
    assert "connecting was refused" in out


def test_a_terminal_sees_how_it_goes_and_ctrl_c_writes_what_there_is(server: Instance) -> None:
    terminal, end = pty.openpty()
    environment = {**server.environment, "TERM": "xterm"}
    process = subprocess.Popen(
        [ESOCKD, "bench", address_of(server, "tcp"), "-d", "10m", "-r", "100/s", "-c", "4", "-t", "20s", "--json"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=end, text=True, env=environment,
    )  # fmt: skip
    os.close(end)
    try:
        seen = b""
        while b"/s now, 4 connected, 0 errors" not in seen:
            seen += os.read(terminal, 4096)
        assert b"\r\x1b[K" in seen
        children = _children(process.pid)
        assert len(children) >= 2
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=LIMIT_S)
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
    assert process.returncode == 130
    told = json.loads(out)
    assert told["completed"] > 0
    assert told["errors"] == {}
    assert not any(Path(f"/proc/{child}").exists() for child in children)


def test_load_processes_end_with_the_command_whatever_ends_it(server: Instance) -> None:
    given = ("-d", "10m", "--mode", "idle", "-c", "8", "-q")
    process = subprocess.Popen([ESOCKD, "bench", address_of(server, "tcp"), *given], env=server.environment)
    try:
        while len(children := _children(process.pid)) < 2:
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    while any(Path(f"/proc/{child}").exists() for child in children):
        time.sleep(0.05)  # the time limit of a test is the bound


def _children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
