"""How long a listener takes to drain, and how late that makes its event loop.

    python benchmarks/drain.py                  a minute
    python benchmarks/drain.py --rounds 5 --only trio

10,000 clients hold a connection each, and finish once the server has. `heeding` handlers end when they are told to;
`deaf` ones are cancelled a second later; `callback` is `CallbackHandler` as it comes. Each server is a fresh process.
The figures: the time until the last connection has ended, and two of a task that wants to run every millisecond
meanwhile. The worst lag is how late it ran, whoever had the CPU. The longest turn is the most CPU time that the server
spent between two of its turns: that part of the lag is the server's own, and holds on a busy machine. Medians over
interleaved rounds, and ranges.
"""

from __future__ import annotations

import argparse
import itertools
import re
import sys
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from harness.errors import BenchmarkError
from harness.machine import CpuShares, facts, raise_descriptor_limit, share_cpus
from harness.processes import end_on_sigterm, running, serving
from harness.tables import markdown

if TYPE_CHECKING:
    from collections.abc import Sequence

PEERS = Path(__file__).resolve().parent / "peers"
STEP_TIMEOUT_S = 60


def measure(loop: str, style: str, connections: int, shares: CpuShares) -> tuple[float, ...]:
    """Seconds of one drain, of the worst lag and of the longest turn."""
    amount = ("--connections", str(connections))
    server_command = (sys.executable, str(PEERS / "esockd_drain.py"), "--loop", loop, "--style", style, *amount)
    with serving(f"{style}, {loop}", server_command, shares.server) as (server, port):
        client_command = (sys.executable, str(PEERS / "waiting_clients.py"), "--port", str(port), *amount)
        with running("the clients", client_command, shares.client):
            server.read_line(STEP_TIMEOUT_S)
            server.write_line()
            ended, *figures = server.read_line(STEP_TIMEOUT_S).split()
    if int(ended) != connections:
        raise BenchmarkError(f"{style}, {loop}: {ended} of {connections} connections ended")
    return tuple(map(float, figures))


def in_ms(figures_s: Sequence[float]) -> str:
    """Median and range in milliseconds."""
    return f"{median(figures_s) * 1000:.0f} ({min(figures_s) * 1000:.0f}-{max(figures_s) * 1000:.0f})"


def main() -> None:
    """Print the facts and the table."""
    end_on_sigterm()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", type=re.compile, default=re.compile(""), metavar="REGEX", help="rows that match")
    options = parser.parse_args()
    raise_descriptor_limit()
    shares = share_cpus(1)
    for name, value in facts(shares, ("esockd-core", "anyio", "uvloop", "trio")).items():
        print(f"- {name}: {value}")
    print(f"- {options.connections:,} connections, {options.rounds} rounds\n", flush=True)
    cases = itertools.product(("heeding", "deaf", "callback"), ("asyncio", "uvloop", "trio"))
    chosen = {f"{style}, {loop}": (loop, style) for style, loop in cases}
    chosen = {name: case for name, case in chosen.items() if options.only.search(name)}
    taken: dict[str, list[tuple[float, ...]]] = {name: [] for name in chosen}
    for _ in range(options.rounds):
        for name, (loop, style) in chosen.items():
            taken[name].append(measure(loop, style, options.connections, shares))
    rows = []
    for name, figures in taken.items():
        seconds, lags_s, turns_s = zip(*figures, strict=True)
        rows.append([name, f"{median(seconds):.2f}", in_ms(lags_s), in_ms(turns_s)])
    columns = ("handler and loop", "seconds", "worst lag ms (range)", "longest turn, CPU ms (range)")
    print(markdown(columns, rows), flush=True)


if __name__ == "__main__":
    main()
