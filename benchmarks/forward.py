"""Compare forwarders in one run: client, forwarder, and an echo server in C behind it.

    python benchmarks/forward.py                    some minutes
    python benchmarks/forward.py --rounds 3 --only uvloop

`echo`: CPU time of the forwarder for one message out and back on connections that stay open. `connect`: for a
connection that is made, sends a message, gets it back and is closed in order. Medians over interleaved rounds; ratios
are taken within each round. HAProxy and socat are left out, and that is said, where they are not installed.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from harness.costs import cpu_ns, ended_children_ns, family
from harness.errors import BenchmarkError
from harness.load import compiled, load
from harness.machine import CpuShares, facts, raise_descriptor_limit, share_cpus
from harness.processes import end_on_sigterm, serving
from harness.rounds import Sample, Series, interleaved
from harness.tables import figure, markdown

if TYPE_CHECKING:
    from collections.abc import Mapping

PEERS = Path(__file__).resolve().parent / "peers"
LOOPS = ("uvloop", "asyncio", "trio")
PROGRAMS = {"HAProxy, one thread": ("haproxy", "-v"), "socat, a child each": ("socat", "-V")}
BASELINES = {"vs HAProxy": "HAProxy, one thread", "vs socat": "socat, a child each"}
STEP_TIMEOUT_S = 60


def installed(program: str) -> str | None:
    """The path of a program; Debian keeps servers in /usr/sbin."""
    return shutil.which(program) or shutil.which(program, path="/usr/local/sbin:/usr/sbin")


def cases() -> dict[str, tuple[str, ...]]:
    """How each forwarder is run, but for its upstream."""
    found: dict[str, tuple[str, ...]] = {}
    for name, (program, _) in PROGRAMS.items():
        if path := installed(program):
            found[name] = (sys.executable, str(PEERS / "forward_program.py"), path)
    for by, loops in (("raw", LOOPS[:2]), ("esockd", LOOPS), ("anyio", LOOPS)):
        for loop in loops:
            found[f"{by}, {loop}"] = (sys.executable, str(PEERS / f"forward_{by}.py"), "--loop", loop)
    return found


def spent_ns(pid: int) -> int:
    """CPU time of a forwarder, of its children, and of those that have ended."""
    while True:
        try:
            return cpu_ns(*family(pid)) + ended_children_ns(pid)
        except BenchmarkError:
            cpu_ns(pid)  # itself is alive, so a child of it has just ended: look again


def measure(command: tuple[str, ...], mode: str, shares: CpuShares, options: argparse.Namespace) -> Sample:
    """CPU time of a freshly started forwarder for an operation, in microseconds."""
    words = ["--connections", str(options.connections), "--size", "64", "--operations", str(options.operations)]
    with ExitStack() as stack:
        _, upstream = stack.enter_context(serving("echo server", (compiled("floor"),), shares.client))
        forwarder, port = stack.enter_context(serving("forwarder", (*command, "--to", str(upstream)), shares.server))
        client = stack.enter_context(load(mode, port, shares.client, words, STEP_TIMEOUT_S))
        client.wait_until("ready")
        before = spent_ns(forwarder.pid)
        client.go_on()
        client.wait_until("measured")
        spent = spent_ns(forwarder.pid) - before
        report = client.report()
    return Sample(spent / 1000 / report["ops"], report)


def table(results: Mapping[str, Series]) -> str:
    """The Markdown table of one mode."""
    rows = []
    for name, series in results.items():
        baselines = [*BASELINES.values(), f"anyio, {name.rpartition(', ')[2]}"]
        ratios = [f"{series.ratio_to(results[each]):.2f}" if each in results else "" for each in baselines]
        rows.append([name, figure(series, 1), *ratios])
    return markdown(["forwarder", "CPU µs/op (range)", *BASELINES, "vs anyio, same loop"], rows)


def main() -> None:
    """Print the facts and two tables."""
    end_on_sigterm()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--operations", type=int, default=20_000, help="messages in `echo`; `connect` makes a tenth")
    parser.add_argument("--only", type=re.compile, default=re.compile(""), help="forwarders whose name matches")
    options = parser.parse_args()
    raise_descriptor_limit()
    shares = share_cpus(1)
    for name, value in facts(shares, ("esockd-core", "anyio", "uvloop", "trio")).items():
        print(f"- {name}: {value}")
    for program, version in PROGRAMS.values():
        path = installed(program)
        told = subprocess.run([path, version], capture_output=True, text=True, check=False).stdout if path else ""
        line = next((line for line in told.splitlines() if "version" in line), "not installed: no ratios to it")
        print(f"- {program}: {line}", flush=True)
    chosen = {name: command for name, command in cases().items() if options.only.search(name)}
    for mode, share in (("echo", 1), ("connect", 10)):
        each = argparse.Namespace(connections=options.connections, operations=options.operations // share)

        def take(name: str, mode: str = mode, each: argparse.Namespace = each) -> Sample:
            return measure(chosen[name], mode, shares, each)

        try:
            results = interleaved(chosen, options.rounds, take, lambda line: print(line, file=sys.stderr, flush=True))
        except BenchmarkError as error:
            sys.exit(f"error: {error}")
        print(f"\n## {mode}\n\n{table(results)}", flush=True)


if __name__ == "__main__":
    main()
