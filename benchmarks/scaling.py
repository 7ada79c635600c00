"""What a second worker brings: operations a second and CPU time for one, and how evenly clients are spread.

    python benchmarks/scaling.py                    some minutes
    python benchmarks/scaling.py --mode balance     one mode: burn, echo, connect, forward or balance

`burn`: a handler that computes half a millisecond for each message. `echo` and `connect`: as in `echo.py`. `forward`:
an echo server in C behind forwarders, beside HAProxy with one thread and two. `balance`: how many of the clients each
of two and of four workers accepts, with a socket for each worker and with one for all. `--also` adds an echo server to
`echo` and `connect`.

Server and client share the processors. The speed-up is the ratio of operations a second within a round: run it where
nothing else runs.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import statistics
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from forward import installed
from harness.costs import cpu_ns, family
from harness.errors import BenchmarkError
from harness.load import compiled, load
from harness.machine import CpuShares, facts, raise_descriptor_limit
from harness.processes import end_on_sigterm, serving
from harness.rounds import Sample, Series, interleaved
from harness.tables import markdown

if TYPE_CHECKING:
    from collections.abc import Mapping

PEERS: Final = Path(__file__).resolve().parent / "peers"
WORKERS: Final = (sys.executable, str(PEERS / "esockd_workers.py"))
STEP_TIMEOUT_S: Final = 120
PACKAGES: Final = ("esockd-core", "anyio", "uvloop")
MODES: Final = ("burn", "echo", "connect", "forward", "balance")


def cases(mode: str, also: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """How each server of a mode is run."""
    style = {"connect": "echo"}.get(mode, mode)
    found: dict[str, tuple[str, ...]] = {
        f"esockd, {count} worker{'s'[: count > 1]}": (*WORKERS, "--style", style, "--workers", str(count))
        for count in (1, 2)
    }
    if mode == "forward" and (program := installed("haproxy")):
        peer = (sys.executable, str(PEERS / "forward_program.py"), program)
        found |= {f"HAProxy, {n} thread{'s'[: n > 1]}": (*peer, "--threads", str(n)) for n in (1, 2)}
    return found | dict(also) if mode in ("echo", "connect") else found


def measure(command: tuple[str, ...], mode: str, options: argparse.Namespace) -> Sample:
    """Microseconds for an operation, by the clock; with the CPU time of the server in the report."""
    cpus = options.cpus
    words = ["--connections", str(options.connections), "--seconds", str(options.seconds), "--warmup", "200"]
    kind = "connect" if mode == "connect" else "echo"
    with ExitStack() as stack:
        if mode == "forward":
            _, upstream = stack.enter_context(serving("echo server", (compiled("floor"),), cpus))
            command = (*command, "--to", str(upstream))
        server, port = stack.enter_context(serving("server", command, cpus))
        client = stack.enter_context(load(kind, port, cpus, words, STEP_TIMEOUT_S))
        client.wait_until("ready")
        pids = family(server.pid)
        before = cpu_ns(*pids)
        client.go_on()
        client.wait_until("measured")
        spent_us = (cpu_ns(*pids) - before) / 1000
        report = client.report()
    return Sample(1e6 * report["wall_s"] / report["ops"], report | {"cpu_us": spent_us / report["ops"]})


def table(results: Mapping[str, Series]) -> str:
    """The Markdown table of one mode."""
    rows = []
    for name, series in results.items():
        single = re.sub(r"\d (worker|thread|scheduler).*", lambda found: "1" + found[0][1:].rstrip("s"), name)
        cpu_us = statistics.median(sample.report["cpu_us"] for sample in series.samples)
        flag = "~ " if series.is_wide else ""
        speed_up = f"{1 / series.ratio_to(results[single]):.2f}" if single in results else ""
        rows.append([name, f"{flag}{1e6 / series.middle:,.0f}", speed_up, f"{cpu_us:.1f}", f"{series.p99_us():,.0f}"])
    return markdown(["server", "operations a second", "speed-up", "CPU µs/op", "p99 µs"], rows)


def accepted(count: int, shared: bool, options: argparse.Namespace) -> list[int]:
    """How many of the clients each worker accepted."""
    command = [*WORKERS, "--workers", str(count), *(["--shared"] if shared else [])]
    words = ["--connections", str(options.connections), "--operations", str(options.clients), "--warmup", "0"]
    with (
        serving("server", command, options.cpus) as (server, port),
        load("connect", port, options.cpus, words, STEP_TIMEOUT_S) as client,
    ):
        client.wait_until("ready")
        client.go_on()
        client.wait_until("measured")
        client.report()
        server.write_line()
        counts: list[int] = json.loads(server.read_line(STEP_TIMEOUT_S))
    return counts


def balance(options: argparse.Namespace) -> str:
    """The table of how evenly clients are spread."""
    rows = []
    for count in (2, 4):
        for name, shared in (("a socket for each", False), ("one socket for all", True)):
            counts = accepted(count, shared, options)
            variation = statistics.pstdev(counts) / statistics.mean(counts)
            rows.append([f"{count} workers, {name}", " / ".join(f"{each:,}" for each in counts), f"{variation:.3f}"])
    return markdown(["sockets", "clients of each worker", "deviation/mean"], rows)


def main() -> None:
    """Print the facts and a table for each mode."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--mode", choices=MODES, nargs="+", default=list(MODES))
    add("--rounds", type=int, default=5, help="how often each server is measured (5)")
    add("--seconds", type=float, default=3, help="how long each time (3)")
    add("--connections", type=int, default=64, help="at the same time (64)")
    add("--clients", type=int, default=20_000, help="in `balance` (20000)")
    add(
        "--also",
        action="append",
        default=[],
        type=lambda text: text.partition("="),
        metavar="NAME=COMMAND",
        help="one more echo server: a command that prints its port; NAME may end in `, 1 scheduler`, `, 2 schedulers`",
    )
    options = parser.parse_args()
    also = {name: tuple(shlex.split(command)) for name, _, command in options.also}
    end_on_sigterm()
    raise_descriptor_limit()
    options.cpus = frozenset(os.sched_getaffinity(0))
    print(f"uvloop, {options.connections} connections, {options.rounds} rounds of {options.seconds:g} s\n")
    for name, value in facts(CpuShares(options.cpus, options.cpus), PACKAGES).items():
        print(f"- {name}: {value}")
    began = time.monotonic()
    for mode in options.mode:
        if mode == "balance":
            print(f"\n## balance, {options.clients:,} clients\n\n{balance(options)}", flush=True)
            continue
        chosen = cases(mode, also)

        def take(name: str, mode: str = mode, chosen: Any = chosen) -> Sample:
            return measure(chosen[name], mode, options)

        try:
            results = interleaved(chosen, options.rounds, take, lambda line: print(line, file=sys.stderr, flush=True))
        except BenchmarkError as error:
            sys.exit(f"error: mode {mode}: {error}")
        print(f"\n## {mode}\n\n{table(results)}", flush=True)
    print(f"\nload average {os.getloadavg()[0]:.2f} after {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
