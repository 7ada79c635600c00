"""The benchmark harness counts right, leaves nothing behind, and its load client notices every kind of loss."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.ports import steady_port

ROOT = Path(__file__).resolve().parent.parent.parent
BENCHMARKS = ROOT / "benchmarks"
RAW_PROTOCOL = [str(BENCHMARKS / "peers" / "raw_protocol.py")]
FAULTY = str(Path(__file__).resolve().parent / "faulty_echo_server.py")
TIMEOUT_S = 50

Load = Callable[..., tuple[int, dict[str, Any], str]]


@contextlib.contextmanager
def server(*command: str) -> Iterator[int]:
    """Run a Python server that prints its port; yield the port."""
    with subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    """Run the freshly compiled load client; return its exit code, its report and what it said on stderr."""
    if shutil.which("cc") is None:
        if os.environ.get("CI"):
            pytest.fail("there is no C compiler (cc)")
        pytest.skip("there is no C compiler (cc)")
    program = tmp_path_factory.mktemp("load") / "load"
    source = BENCHMARKS / "load" / "load.c"
    flags = ["-O2", "-std=c11", "-Wall", "-Wextra", "-Wshadow", "-Werror"]
    subprocess.run(["cc", *flags, "-o", program, source], check=True, timeout=TIMEOUT_S)

    def run(mode: str, port: int, **options: float) -> tuple[int, dict[str, Any], str]:
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        done = subprocess.run(
            [program, mode, "--port", str(port), *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        lines = [line for line in done.stdout.splitlines() if line not in {"ready", "measured"}]
        return done.returncode, json.loads(lines[-1]) if lines else {}, done.stderr

    return run


def test_echo_counts_every_operation(load: Load) -> None:
    with server(*RAW_PROTOCOL) as port:
        code, report, _ = load("echo", port, connections=7, size=100, operations=500, warmup=20)
    assert (code, report["ops"], report["errors"], report["lost"]) == (0, 500, 0, 0)
    assert 0 < report["latency_us"]["p50"] <= report["latency_us"]["p99"] <= report["latency_us"]["max"]


def test_echo_takes_messages_larger_than_any_socket_buffer(load: Load) -> None:
    with server(*RAW_PROTOCOL) as port:
        code, report, _ = load("echo", port, connections=2, size=8_000_000, operations=4, warmup=0)
    assert (code, report["ops"], report["errors"]) == (0, 4, 0)


def test_echo_ends_after_the_seconds_it_was_given(load: Load) -> None:
    with server(*RAW_PROTOCOL) as port:
        code, report, _ = load("echo", port, connections=4, seconds=0.1)
    assert (code, report["errors"]) == (0, 0)
    assert report["ops"] > 0


def test_echo_at_a_rate_begins_no_more_than_that(load: Load) -> None:
    with server(*RAW_PROTOCOL) as port:
        code, report, _ = load("echo", port, connections=4, seconds=0.2, rate=1000, warmup=10)
    assert (code, report["errors"]) == (0, 0)
    assert 0 < report["ops"] <= 200


def test_connect_closes_every_connection_in_order(load: Load) -> None:
    with server(*RAW_PROTOCOL) as port:
        code, report, _ = load("connect", port, connections=5, operations=60, warmup=10)
    assert (code, report["ops"], report["ended_by_fin"], report["ended_by_reset"]) == (0, 60, 60, 0)


def test_refuse_counts_connections_that_are_closed_at_once(load: Load) -> None:
    with server(*RAW_PROTOCOL, "--refuse") as port:
        code, report, _ = load("refuse", port, connections=5, operations=60, warmup=10)
    assert (code, report["ops"], report["ended_by_fin"] + report["ended_by_reset"]) == (0, 60, 60)


def test_refuse_fails_when_the_server_lets_a_client_in(load: Load) -> None:
    with server(*RAW_PROTOCOL) as port:
        code, report, complaint = load("refuse", port, connections=2, operations=2, warmup=0, timeout=0.2)
    assert (code, report["ops"], report["errors"]) == (1, 0, 2)
    assert "the server did not close in time" in complaint


def test_idle_connections_all_answer_again_after_they_were_held(load: Load) -> None:
    with server(*RAW_PROTOCOL) as port:
        code, report, _ = load("idle", port, connections=300)
    assert (code, report["ops"], report["errors"]) == (0, 300, 0)


def test_a_server_that_is_not_there_is_an_error(load: Load) -> None:
    code, report, complaint = load("echo", steady_port(), connections=3, operations=10)
    assert (code, report["ops"], report["errors"]) == (1, 0, 3)
    assert "Connection refused" in complaint


@pytest.mark.parametrize("mode", ["echo", "idle", "connect"])
def test_the_faulty_server_without_a_fault_passes(load: Load, mode: str) -> None:
    amount = {} if mode == "idle" else {"operations": 40}
    with server(FAULTY, "none") as port:
        code, report, _ = load(mode, port, connections=2, **amount)
    assert (code, report["errors"]) == (0, 0)


@pytest.mark.parametrize(
    ("fault", "counter", "complaint"),
    [
        ("drops-a-byte", "corrupt", "byte 20 of 64 is not the one that was sent"),
        ("drops-the-last-byte", "lost", "no more than 63 of 64 bytes came back in time"),
        ("doubles-a-byte", "corrupt", "byte 20 of 64 is not the one that was sent"),
        ("changes-a-byte", "corrupt", "byte 20 of 64 is not the one that was sent"),
        ("swaps-two-bytes", "corrupt", "byte 0 of 64 is not the one that was sent"),
        ("repeats-an-older-message", "corrupt", "byte 0 of 64 is not the one that was sent"),
        ("adds-a-byte", "surplus_bytes", "1 bytes came back that were never sent"),
        ("swallows-a-message", "lost", "no more than 0 of 64 bytes came back in time"),
        ("closes", "lost", "the server closed after 0 of 64 bytes"),
    ],
)
def test_the_load_client_notices_a_server_that(load: Load, fault: str, counter: str, complaint: str) -> None:
    with server(FAULTY, fault) as port:
        code, report, said = load("echo", port, connections=3, operations=100, warmup=0, timeout=0.3)
    assert (code, report["errors"], report[counter]) == (1, 3, 3)
    assert complaint in said


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ({}, "give one of --operations and --seconds"),
        ({"operations": 1, "seconds": 1}, "give one of --operations and --seconds"),
        ({"operations": 0}, "--operations takes a number from 1"),
        ({"operations": 1, "connections": 9_999_999}, "connections need more than the"),
    ],
)
def test_bad_options_say_what_is_wrong(load: Load, words: dict[str, float], complaint: str) -> None:
    code, report, said = load("echo", 1, **words)
    assert (code, report) == (2, {})
    assert complaint in said


def compare(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the comparison itself."""
    return subprocess.run(
        [sys.executable, BENCHMARKS / "echo.py", *words], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )


@pytest.mark.usefixtures("load")
@pytest.mark.parametrize("mode", ["echo", "connect", "idle"])
def test_the_comparison_prints_a_row_for_each_server_and_records_every_round(tmp_path: Path, mode: str) -> None:
    record = tmp_path / "results.json"
    few = ["--rounds", "2", "--operations", "200", "--connections", "8", "--idle-connections", "50"]
    done = compare("--mode", mode, *few, "--only", "^(raw|streams).*asyncio$", "--json", str(record))
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^\| (\w.*?) +\| +(?:~ )?[\d.,-]+ \(", done.stdout, re.MULTILINE) == [
        "raw Protocol, asyncio",
        "streams, asyncio",
    ]
    results = json.loads(record.read_text())["modes"][mode]
    expected = 50 if mode == "idle" else 200
    assert [client["ops"] for case in results.values() for client in case["client"]] == [expected] * 4
    assert "vs raw, same loop" in results["streams, asyncio"]["ratios"]


@pytest.mark.parametrize("row", ["heeding, asyncio", "deaf, trio", "callback, uvloop"])
def test_the_drain_benchmark_tells_how_each_handler_ended(row: str) -> None:
    command = [sys.executable, str(BENCHMARKS / "drain.py"), "--connections", "50", "--rounds", "1", "--only", row]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(rf"^\| {row} +\| +[\d.]+ \|( +\d+ \(\d+-\d+\) \|){{2}}$", done.stdout, re.MULTILINE)


def test_operations_that_another_checkout_has_no_server_for_are_left_out_and_named(tmp_path: Path) -> None:
    peers = tmp_path / "benchmarks" / "peers"
    peers.mkdir(parents=True)
    (peers / "esockd.py").touch()
    program = (
        f"from pathlib import Path; from instructions import comparable; print(comparable(Path({str(tmp_path)!r})))"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=BENCHMARKS, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    reason, modes = done.stdout.splitlines()
    assert reason == f"- left out: datagrams, because {peers / 'datagram_echo.py'} does not exist"
    assert modes == "['echo', 'connect', 'refuse']"


def test_the_cost_of_handshakes_has_a_row_for_each_key_and_version() -> None:
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "tls.py", "handshake", "--rounds", "1"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=True,
    )
    for key in ("ECDSA P-256, TLS 1.3, resumed", "RSA 2048, TLS 1.2", "RSA 3072, TLS 1.3"):
        assert f"| {key} " in done.stdout


@pytest.mark.usefixtures("load")
def test_forwarders_are_compared_with_each_other(require_tool: Callable[[str], str]) -> None:
    require_tool("haproxy")
    few = ["--rounds", "1", "--operations", "2000", "--connections", "8", "--only", "HAProxy|uvloop"]
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "forward.py", *few],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^\| (\w.*?) +\| +[\d.,-]+ \(.*?\) \| +([\d.]+) \|", done.stdout, re.MULTILINE)
    names = ["HAProxy, one thread", "raw, uvloop", "esockd, uvloop", "anyio, uvloop"]
    assert [name for name, _ in rows] == names * 2
    assert [ratio for name, ratio in rows if name == names[0]] == ["1.00", "1.00"]


@pytest.mark.timeout(240)
@pytest.mark.usefixtures("load")
@pytest.mark.parametrize("style", ["coroutine", "callback"])
def test_the_connections_of_many_clients_are_held_by_many_workers_and_measured(tmp_path: Path, style: str) -> None:
    figures = tmp_path / "figures.json"
    few = ["--connections", "150", "--files", "160", "--rate", "2x", "--seconds", "2", "--idle", "0.5", "--settle", "0"]
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "million.py", "--style", style, "--json", str(figures), *few],
        capture_output=True,
        text=True,
        timeout=2 * TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (held,) = json.loads(figures.read_text())
    assert (held["connections"], held["workers"], held["lost"]) == (150, 2, [0, 0, 0])
    assert held["messages"] > 0
    assert "memory of the server" in done.stdout


@pytest.mark.timeout(240)
@pytest.mark.usefixtures("load")
def test_workers_are_compared_with_one_and_their_clients_counted() -> None:
    few = ["--rounds", "1", "--seconds", "0.2", "--connections", "4", "--clients", "40"]
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "scaling.py", "--mode", "burn", "balance", *few],
        capture_output=True,
        text=True,
        timeout=3 * TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"\| esockd, 1 worker +\| +[\d,]+ \| +1.00 \|", done.stdout)
    assert re.search(r"\| 4 workers, one socket for all +\|", done.stdout)


def test_the_time_of_children_that_ended_is_not_forgotten() -> None:
    burn = "import time\\nwhile time.process_time() < 0.2: pass"
    ask = (
        "import os, subprocess, sys; from harness.costs import ended_children_ns;"
        f"subprocess.run([sys.executable, '-c', '{burn}'], check=True); print(ended_children_ns(os.getpid()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", ask], cwd=BENCHMARKS, capture_output=True, text=True, timeout=TIMEOUT_S, check=True
    )
    assert int(done.stdout) >= 190_000_000


@pytest.mark.usefixtures("load")
def test_a_server_that_does_not_start_stops_the_comparison_with_its_last_words() -> None:
    done = compare("--mode", "echo", "--only", "^mine$", "--also", f"mine={sys.executable} -c 'import nothing_of_it'")
    assert done.returncode == 1
    assert "error: mode echo, server 'mine': mine ended with exit code 1" in done.stderr
    assert "No module named 'nothing_of_it'" in done.stderr
    assert 'Traceback (most recent call last):\n  File "' + str(BENCHMARKS) not in done.stderr


@pytest.mark.usefixtures("load")
def test_a_server_that_loses_a_byte_stops_the_comparison() -> None:
    faulty = f"mine={sys.executable} {FAULTY} drops-a-byte"
    done = compare("--mode", "echo", "--only", "^mine$", "--also", faulty, "--operations", "1000")
    assert done.returncode == 1
    assert re.search(r"error: mode echo, server 'mine': \d+ errors, .*is not the one that was sent", done.stderr)


@pytest.mark.usefixtures("load")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_comparison_leaves_no_process_behind(tmp_path: Path, number: signal.Signals) -> None:
    mark = tmp_path / "a server that was started here"
    mine = f"mine={sys.executable} {RAW_PROTOCOL[0]}"
    marked = dict(os.environ, ESOCKD_TEST_MARK=str(mark))
    words = ["--mode", "echo", "--only", "^mine$", "--also", mine, "--seconds", "20", "--rounds", "1"]
    with subprocess.Popen(
        [sys.executable, BENCHMARKS / "echo.py", *words],
        env=marked,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        wait_for(lambda: len(processes_with(str(mark))) == 3)  # itself, the server, the load client
        process.send_signal(number)
        process.wait(TIMEOUT_S)
        wait_for(lambda: not processes_with(str(mark)))


def processes_with(mark: str) -> list[str]:
    """Ids of the processes whose environment holds `mark`."""
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark.encode() in environment.read_bytes():
                found.append(environment.parent.name)
    return found


def wait_for(condition: Callable[[], bool]) -> None:
    """Return once the condition holds; fail when it does not within the time limit."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
