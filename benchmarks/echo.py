"""Compare echo servers in one run: CPU time per operation, or private memory per idle connection.

    make bench                                      every mode and server: some minutes
    make bench ARGS="--mode echo --rounds 9"        one mode
    make bench ARGS="--only uvloop --seconds 0.3"   the servers whose name matches

The figures are medians over interleaved rounds with their range; a `~` marks those whose rounds disagree too much to be
quoted. Ratios are taken within each round. benchmarks/README.md says what holds of this and what does not.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from echo_servers import MODES, Case, cases_of
from harness.costs import cpu_ns, private_bytes
from harness.errors import BenchmarkError
from harness.load import load
from harness.machine import CpuShares, facts, raise_descriptor_limit, share_cpus
from harness.processes import end_on_sigterm, serving
from harness.rounds import Sample, Series, interleaved
from harness.tables import as_json, figure, markdown

if TYPE_CHECKING:
    from collections.abc import Sequence

TITLES = {
    "echo": "Echo: one message out and back",
    "connect": "Connect, one message out and back, close",
    "refuse": "Refused connections beside served ones",
    "idle": "Private memory of a connection that is idle",
}
PACKAGES = ("uvloop", "anyio", "trio", "esockd-core")
FIRST_CONNECTIONS = 200  # opened before memory is read the first time: they pay for what is allocated once
STEP_TIMEOUT_S = 60


def cpu_us_per_operation(case: Case, shares: CpuShares, options: argparse.Namespace) -> Sample:
    """CPU time of a freshly started server over one measured part, in microseconds per operation."""
    amount = ["--operations", str(options.operations)] if options.operations else ["--seconds", str(options.seconds)]
    words = ["--connections", str(options.connections), "--size", str(options.size), *amount]
    if shares.apart:
        words.append("--spin")
    timeout_s = options.seconds + STEP_TIMEOUT_S
    with (
        serving(case.name, case.command, shares.server) as (server, port),
        load(case.mode, port, shares.client, words, timeout_s) as client,
    ):
        client.wait_until("ready")
        before_ns = cpu_ns(server.pid)
        client.go_on()
        client.wait_until("measured")
        spent_ns = cpu_ns(server.pid) - before_ns
        report = client.report()
    return Sample(spent_ns / 1000 / report["ops"], report)


def bytes_per_connection(case: Case, shares: CpuShares, options: argparse.Namespace) -> Sample:
    """Growth of a server's private memory over many connections that echoed once and are held, per connection."""
    with ExitStack() as stack:
        server, port = stack.enter_context(serving(case.name, case.command, shares.server))
        sizes, clients = [], []
        for connections in (FIRST_CONNECTIONS, options.idle_connections):
            words = ["--connections", str(connections), "--size", str(options.size)]
            client = stack.enter_context(load("idle", port, shares.client, words, STEP_TIMEOUT_S))
            client.wait_until("ready")
            sizes.append(private_bytes(server.pid))
            clients.append(client)
        reports = [client.report() for client in clients]
    return Sample((sizes[1] - sizes[0]) / options.idle_connections, reports[-1])


def ratios(case: Case, results: dict[str, Series]) -> dict[str, float]:
    """What a case's columns of ratios hold: nothing where the baseline was not measured."""
    return {
        column: results[case.name].ratio_to(results[baseline])
        for column, baseline in case.baselines.items()
        if baseline in results
    }


def table(cases: Sequence[Case], results: dict[str, Series], mode: str) -> str:
    """The Markdown table of one mode."""
    columns = list(dict.fromkeys(column for case in cases for column in case.baselines))
    unit, digits = ("bytes (range)", 0) if mode == "idle" else ("CPU µs/op (range)", 2)
    header = ["server", unit, *columns, *([] if mode == "idle" else ["p99 µs"])]
    rows = []
    for case in cases:
        series, found = results[case.name], ratios(case, results)
        cells = [f"{found[column]:.2f}" if column in found else "" for column in columns]
        latency = [] if mode == "idle" else [f"{series.p99_us():,.0f}"]
        rows.append([case.name, figure(series, digits), *cells, *latency])
    return markdown(header, rows)


def chosen(mode: str, options: argparse.Namespace) -> list[Case]:
    """The cases of a mode that the options leave, with the columns they add."""
    cases = cases_of(mode, max_connections=options.idle_connections + 2 * FIRST_CONNECTIONS + options.connections)
    cases += [Case(name, tuple(shlex.split(command)), mode) for name, _, command in options.also]
    names = {case.name for case in cases}
    if unknown := [name for name in options.baseline if name not in names]:
        raise BenchmarkError(f"no server {unknown[0]!r} in mode {mode}; there are: {'; '.join(sorted(names))}")
    extra = {f"vs {name}": name for name in options.baseline}
    kept = [replace(case, baselines=case.baselines | extra) for case in cases if options.only.search(case.name)]
    if not kept:
        raise BenchmarkError(f"--only matches no server in mode {mode}; there are: {'; '.join(sorted(names))}")
    return kept


def run_mode(mode: str, shares: CpuShares, options: argparse.Namespace) -> dict[str, Any]:
    """Measure one mode, print its table, return all its figures."""
    cases = {case.name: case for case in chosen(mode, options)}
    measure = bytes_per_connection if mode == "idle" else cpu_us_per_operation

    def take(name: str) -> Sample:
        try:
            return measure(cases[name], shares, options)
        except BenchmarkError as error:
            raise BenchmarkError(f"mode {mode}, server {name!r}: {error}") from error

    results = interleaved(cases, options.rounds, take, lambda line: print(mode, line, file=sys.stderr, flush=True))
    print(f"\n## {TITLES[mode]}\n\n{table(list(cases.values()), results, mode)}", flush=True)
    return as_json(results, {name: ratios(case, results) for name, case in cases.items()})


def positive(kind: type[int | float]) -> Any:
    """An argparse type: a number above zero."""

    def parse(text: str) -> float:
        if not (number := kind(text)) > 0:
            raise argparse.ArgumentTypeError(f"must be above 0, not {text}")
        return number

    return parse


def parse_options(descriptors: int) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--mode", choices=[*MODES, "all"], default="all")
    add("--rounds", type=positive(int), default=5, help="how often each server is measured (5)")
    add("--seconds", type=positive(float), default=1.0, help="of one measurement (1)")
    add("--operations", type=positive(int), help="in one measurement, instead of --seconds")
    add("--connections", type=positive(int), default=64, help="at the same time (64)")
    add("--size", type=positive(int), default=64, help="bytes in a message (64)")
    add("--server-cpus", type=positive(int), default=1, help="how many CPUs a server may use (1)")
    add("--idle-connections", type=positive(int), default=min(10_000, descriptors // 2), help="(%(default)s)")
    add("--only", type=re.compile, default=re.compile(""), metavar="REGEX", help="servers whose name matches")
    add("--baseline", action="append", default=[], metavar="NAME", help="add a column of ratios to this server")
    add(
        "--also",
        action="append",
        default=[],
        type=lambda text: text.partition("="),
        metavar="NAME=COMMAND",
        help="one more echo server: a command that prints its port on 127.0.0.1",
    )
    add("--json", type=Path, metavar="FILE", help="write every single figure there")
    options = parser.parse_args()
    if options.mode in {"idle", "all"} and options.idle_connections + FIRST_CONNECTIONS + 100 > descriptors:
        parser.error(
            f"--idle-connections {options.idle_connections} needs more open files than the {descriptors} allowed here:"
            " give fewer, or raise the hard limit (ulimit -Hn)"
        )
    return options


def main() -> None:
    end_on_sigterm()
    options = parse_options(raise_descriptor_limit())
    shares = share_cpus(options.server_cpus)
    known = facts(shares, PACKAGES)
    amount = f"{options.operations:,} operations" if options.operations else f"{options.seconds:g} s"
    known["each round"] = f"{amount}, {options.connections} connections, {options.size} bytes; {options.rounds} rounds"
    known["idle"] = f"{options.idle_connections:,} connections"
    print("\n".join(f"- {name}: {fact}" for name, fact in known.items()), flush=True)
    modes = MODES if options.mode == "all" else [options.mode]
    try:
        results = {mode: run_mode(mode, shares, options) for mode in modes}
    except BenchmarkError as error:
        sys.exit(f"error: {error}")
    if options.json:
        options.json.write_text(json.dumps({"facts": known, "modes": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
