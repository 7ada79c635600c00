"""What `esockd bench` costs for a message, next to the servers that it loads: how many load processes outrun them.

    python benchmarks/load_generator.py          a minute

Each round loads each server for a second, with one load process, 64 connections and 64 bytes. The costs are CPU time of
the server and of the load process. Their ratio, rounded up, is how many load processes with a processor each have the
server busy all the time.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path

from harness.costs import cpu_ns
from harness.load import compiled
from harness.machine import CpuShares, facts, share_cpus
from harness.processes import end_on_sigterm, serving
from harness.rounds import Sample, Series, interleaved
from harness.tables import figure, markdown

ESOCKD = str(Path(sys.executable).with_name("esockd"))
PEERS = Path(__file__).resolve().parent / "peers"
SERVERS = {
    "C and epoll (floor)": (),
    "raw Protocol, uvloop": (sys.executable, str(PEERS / "raw_protocol.py"), "--loop", "uvloop"),
    "esockd callback, uvloop": (
        sys.executable,
        str(PEERS / "esockd.py"),
        "--style",
        "callback",
        "--loop",
        "uvloop",
        "--rules",
        "1000",
    ),
    "esockd coroutine, uvloop": (
        sys.executable,
        str(PEERS / "esockd.py"),
        "--style",
        "coroutine",
        "--loop",
        "uvloop",
        "--rules",
        "1000",
    ),
}


def measure(name: str, shares: CpuShares) -> Sample:
    """CPU time of the server and of the load for a message, in microseconds."""
    command = SERVERS[name] or (compiled("floor"),)
    with serving(name, command, shares.server) as (server, port):
        before = cpu_ns(server.pid)
        done = subprocess.run(
            ["taskset", "-c", ",".join(map(str, sorted(shares.client))), ESOCKD, "bench", f"127.0.0.1:{port}",
             "--processes", "1", "--duration", "1s", "--json"],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        told = json.loads(done.stdout)
        value = (cpu_ns(server.pid) - before) / 1000 / told["completed"]
        return Sample(value, {"load": told["cpu"] * 1e6 / told["completed"], "per_second": told["per_second"]})


def to_stderr(text: str) -> None:
    """Tell who waits."""
    print(text, file=sys.stderr)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    end_on_sigterm()
    shares = share_cpus(1)
    for name, fact in facts(shares, ("esockd-cli", "uvloop")).items():
        print(f"- {name}: {fact}")
    results = interleaved(SERVERS, options.rounds, lambda name: measure(name, shares), to_stderr)
    rows = []
    for name, servers in results.items():
        loads = Series(tuple(Sample(each.report["load"], {}) for each in servers.samples))
        ratio = loads.ratio_to(servers)
        rows.append([name, figure(servers, 2), figure(loads, 2), f"{ratio:.2f}", str(math.ceil(ratio))])
    print()
    print(markdown(["server", "server, CPU µs/op", "load, CPU µs/op", "load / server", "processes"], rows))


if __name__ == "__main__":
    main()
