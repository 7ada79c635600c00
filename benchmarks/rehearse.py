"""What a rehearsal costs: CPU time of a connection with one and without, on the same server, in one run.

    python benchmarks/rehearse.py                   a few minutes
    python benchmarks/rehearse.py --rounds 15 --only uvloop

Each connection is made, sends a message, gets it back and is closed in order. `passes` rehearses a rule in front of
1,000 others, a rate and a number of connections, which would refuse nobody. `sources` also limits sources. `refused`
rehearses a rule that would refuse everybody. The clients take turns with 64 addresses, or as many as `--sources` says.
They never sleep where they have a CPU to themselves, or the server would pay for waking them. Medians over interleaved
rounds; ratios are taken within each round.
"""

from __future__ import annotations

import argparse
import itertools
import re
import sys
from typing import TYPE_CHECKING

from echo_servers import esockd
from harness.costs import cpu_ns, family
from harness.errors import BenchmarkError
from harness.load import load
from harness.machine import CpuShares, facts, raise_descriptor_limit, share_cpus
from harness.processes import end_on_sigterm, serving
from harness.rounds import Sample, Series, interleaved
from harness.tables import figure, markdown

if TYPE_CHECKING:
    from collections.abc import Mapping

LOOPS = ("uvloop", "asyncio", "trio")
STYLES = ("coroutine", "callback")
REHEARSED = {"off": "none", "passes": "pass", "sources": "sources", "refused": "refuse"}
STEP_TIMEOUT_S = 60


def measure(loop: str, style: str, rehearsed: str, shares: CpuShares, options: argparse.Namespace) -> Sample:
    """CPU time of a freshly started server for a connection, in microseconds."""
    words = ["--connections", "64", "--size", "64", "--operations", str(options.operations)]
    words += ["--sources", str(options.sources)]
    if shares.apart:
        words.append("--spin")
    command = esockd(loop, style, 2000, "--rehearse", REHEARSED[rehearsed])
    with (
        serving("the server", command, shares.server) as (server, port),
        load("connect", port, shares.client, words, STEP_TIMEOUT_S) as client,
    ):
        client.wait_until("ready")
        before = cpu_ns(*family(server.pid))
        client.go_on()
        client.wait_until("measured")
        spent = cpu_ns(*family(server.pid)) - before
        report = client.report()
    return Sample(spent / 1000 / report["ops"], report)


def table(results: Mapping[str, Series]) -> str:
    """The Markdown table."""
    rows = []
    for name, series in results.items():
        off = f"{name.rpartition(', ')[0]}, off"
        ratio = f"{series.ratio_to(results[off]):.3f}" if off in results and off != name else ""
        rows.append([name, figure(series, 1), ratio])
    return markdown(["loop, handler, rehearsal", "CPU µs/connection (range)", "vs off"], rows)


def main() -> None:
    """Print the facts and the table."""
    end_on_sigterm()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--operations", type=int, default=6_000, help="connections in a round")
    parser.add_argument("--sources", type=int, default=64, help="addresses of the clients, which come in turn (64)")
    parser.add_argument("--only", type=re.compile, default=re.compile(""), help="rows whose name matches")
    options = parser.parse_args()
    raise_descriptor_limit()
    shares = share_cpus(1)
    for name, value in facts(shares, ("esockd-core", "anyio", "uvloop", "trio")).items():
        print(f"- {name}: {value}")
    print(f"- rounds: {options.rounds} of {options.operations:,} connections; the median counts\n", flush=True)
    cases = {", ".join(case): case for case in itertools.product(LOOPS, STYLES, REHEARSED)}
    chosen = {name: case for name, case in cases.items() if options.only.search(name)}
    try:
        results = interleaved(
            chosen,
            options.rounds,
            lambda name: measure(*chosen[name], shares, options),
            lambda line: print(line, file=sys.stderr, flush=True),
        )
    except BenchmarkError as error:
        sys.exit(f"error: {error}")
    print(table(results), flush=True)


if __name__ == "__main__":
    main()
