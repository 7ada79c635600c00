"""Compare UDP echo servers in one run: CPU time per datagram, memory of a peer, and what is lost at which rate.

    python benchmarks/datagrams.py                        every mode: some minutes
    python benchmarks/datagrams.py --mode echo            64 peers that play ping-pong
    python benchmarks/datagrams.py --mode one             one peer at a time
    python benchmarks/datagrams.py --mode idle            private memory of a peer that sent one datagram
    python benchmarks/datagrams.py --mode flood           a steady rate, and the share that comes back

The figures are medians over interleaved rounds with their range, as in benchmarks/echo.py.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.costs import cpu_ns, private_bytes
from harness.errors import BenchmarkError
from harness.load import compiled
from harness.machine import CpuShares, facts, raise_descriptor_limit, share_cpus
from harness.processes import end_on_sigterm, running, serving
from harness.rounds import Sample, Series, interleaved
from harness.tables import figure, markdown

if TYPE_CHECKING:
    from collections.abc import Sequence

PEER = Path(__file__).resolve().parent / "peers" / "datagram_echo.py"
STEP_TIMEOUT_S = 60
FIRST_PEERS = 200  # before memory is read the first time: they pay for what is allocated once
TITLES = {
    "echo": "64 peers that play ping-pong",
    "one": "One peer at a time",
    "idle": "Private memory of a peer that sent one datagram",
    "flood": "What comes back at a steady rate, 64 peers",
}


@dataclass(frozen=True)
class Case:
    """One row of a table: its name, its command, and which row each column of ratios is taken against."""

    name: str
    command: tuple[str, ...]
    against: dict[str, str] = field(default_factory=dict)


def python(server: str, loop: str) -> tuple[str, ...]:
    """The command of a server."""
    return (sys.executable, str(PEER), "--server", server, "--loop", loop)


def cases(mode: str) -> list[Case]:
    """The servers of a mode."""
    found = []
    if mode in {"echo", "one"}:
        found.append(Case("C, blocking (floor)", (compiled("floor_datagrams"),)))
    for loop in ("uvloop", "asyncio", "trio"):
        protocol, anyio = f"DatagramProtocol, {loop}", f"anyio, {loop}"
        against = {"vs Protocol, same loop": protocol, "vs anyio, same loop": anyio}
        if loop == "trio":
            protocol = "trio.socket"
            against = {"vs anyio, same loop": anyio}
        if mode != "idle":
            found.append(Case(protocol, python("trio" if loop == "trio" else "protocol", loop)))
            found.append(Case(anyio, python("anyio", loop)))
        for style in ("coroutine", "callback"):
            both = against if style == "coroutine" else against | {"vs coroutine": f"esockd coroutine, {loop}"}
            found.append(Case(f"esockd {style}, {loop}", python(style, loop), both))
    return found


def cpu_us_per_datagram(case: Case, shares: CpuShares, options: argparse.Namespace, peers: int) -> Sample:
    """CPU time of a freshly started server over one measured part, in microseconds per echoed datagram."""
    words = ["echo", "--peers", str(peers), "--size", str(options.size), "--seconds", str(options.seconds), "--step"]
    words += ["--spin"] if shares.apart else []
    with (
        serving(case.name, case.command, shares.server) as (server, port),
        running("load", [compiled("datagrams"), *words, "--port", str(port)], shares.client) as client,
    ):
        expect(client.read_line(STEP_TIMEOUT_S), "ready")
        before_ns = cpu_ns(server.pid)
        client.write_line()
        expect(client.read_line(STEP_TIMEOUT_S), "measured")
        spent_ns = cpu_ns(server.pid) - before_ns
        client.write_line()
        report = json.loads(client.read_line(STEP_TIMEOUT_S))
    if report["lost"] * 1000 >= max(1, report["ops"]):
        raise BenchmarkError(f"{case.name} lost {report['lost']} of {report['ops']} datagrams")
    return Sample(spent_ns / 1000 / report["ops"], report)


def bytes_per_peer(case: Case, shares: CpuShares, options: argparse.Namespace) -> Sample:
    """Growth of a server's private memory over many peers that sent one datagram each, per peer."""
    sizes: list[int] = []
    report: dict[str, Any] = {}
    with serving(case.name, case.command, shares.server) as (server, port):
        for peers in (FIRST_PEERS, options.idle_peers):
            words = ["flood", "--peers", str(peers), "--rate", "10000", "--seconds", str(peers / 10_000)]
            with running("load", [compiled("datagrams"), *words, "--port", str(port)], shares.client) as client:
                report = json.loads(client.read_line(STEP_TIMEOUT_S))
                sizes.append(private_bytes(server.pid))
    return Sample((sizes[1] - sizes[0]) / min(report["received"], options.idle_peers), report)


def flood(case: Case, shares: CpuShares, options: argparse.Namespace, rate: int) -> dict[str, Any]:
    """Send at a steady rate; what came back, and where the rest was lost."""
    words = ["flood", "--peers", "64", "--rate", str(rate), "--seconds", str(options.flood_seconds)]
    words += ["--size", str(options.size), "--port"]
    with serving(case.name, case.command, shares.server) as (server, port):
        with running("load", [compiled("datagrams"), *words, str(port)], shares.client) as client:
            report: dict[str, Any] = json.loads(client.read_line(STEP_TIMEOUT_S + options.flood_seconds))
        if case.name.startswith("esockd"):
            server.write_line()
            report |= json.loads(server.read_line(STEP_TIMEOUT_S))
    return report


def expect(line: str, point: str) -> None:
    """Check what the load client stands at.

    Raises:
        BenchmarkError: It is something else.
    """
    if line != point:
        raise BenchmarkError(f"the load client said {line!r} instead of {point!r}")


def table(found: Sequence[Case], results: dict[str, Series], mode: str) -> str:
    """The Markdown table of one mode."""
    columns = list(dict.fromkeys(column for case in found for column in case.against))
    is_memory = mode == "idle"
    header = ["server", "bytes (range)" if is_memory else "CPU µs (range)", *([] if is_memory else columns)]
    rows = []
    for case in found:
        series = results[case.name]
        cells = []
        for column in [] if is_memory else columns:
            baseline = results.get(case.against.get(column, ""))
            cells.append("" if baseline is None else f"{series.ratio_to(baseline):.2f}")
        rows.append([case.name, figure(series, 0 if is_memory else 2), *cells])
    return markdown(header, rows)


def flood_table(found: Sequence[Case], shares: CpuShares, options: argparse.Namespace) -> str:
    """The share that comes back at each rate, and for ours where the rest was dropped on its way in."""
    rows, lost = [], []
    for case in found:
        cells, places = [], []
        for rate in options.rates:
            report = flood(case, shares, options, rate)
            cells.append(f"{100 * report['received'] / max(1, report['sent']):.1f} %")
            dropped, sent = report.get("dropped", {}), max(1, report["sent"])
            in_kernel = dropped.get("kernel_overflow", 0)
            places.append(f"{100 * in_kernel / sent:.1f} / {100 * (sum(dropped.values()) - in_kernel) / sent:.1f} %")
            print("flood", case.name, rate, json.dumps(report), file=sys.stderr, flush=True)
        rows.append([case.name, *cells])
        if case.name.startswith("esockd"):
            lost.append([case.name, *places])
    head = ["server", *(f"{rate:,}/s" for rate in options.rates)]
    places_told = f"Dropped in the kernel's receive buffer / by the listener:\n\n{markdown(head, lost)}"
    return f"{markdown(head, rows)}\n\n{places_told}"


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--mode", choices=[*TITLES, "all"], default="all")
    add("--rounds", type=int, default=5, help="how often each server is measured (5)")
    add("--seconds", type=float, default=0.4, help="of each measured part (0.4)")
    add("--size", type=int, default=64, help="bytes of a datagram (64)")
    add("--only", type=re.compile, default=re.compile(""), help="only servers whose name matches")
    add("--idle-peers", type=int, default=5_000)
    add("--flood-seconds", type=float, default=2.0)
    add("--rates", type=int, nargs="+", default=[2_000, 5_000, 10_000, 20_000, 50_000, 100_000])
    return parser.parse_args()


def main() -> None:
    """Entry point."""
    end_on_sigterm()
    raise_descriptor_limit()
    options = parse_options()
    shares = share_cpus(1)
    for name, told in facts(shares, ("uvloop", "anyio", "trio", "esockd-core")).items():
        print(f"- {name}: {told}")
    print(f"- each round: {options.seconds} s, {options.size} bytes; {options.rounds} rounds", flush=True)
    for mode in TITLES if options.mode == "all" else [options.mode]:
        found = [case for case in cases(mode) if options.only.search(case.name)]
        if mode == "flood":
            print(f"\n## {TITLES[mode]}\n\n{flood_table(found, shares, options)}", flush=True)
            continue
        by_name = {case.name: case for case in found}

        def take(name: str, mode: str = mode, by_name: dict[str, Case] = by_name) -> Sample:
            if mode == "idle":
                return bytes_per_peer(by_name[name], shares, options)
            return cpu_us_per_datagram(by_name[name], shares, options, 64 if mode == "echo" else 1)

        results = interleaved(by_name, options.rounds, take, lambda line: print(line, file=sys.stderr, flush=True))
        print(f"\n## {TITLES[mode]}\n\n{table(found, results, mode)}", flush=True)


if __name__ == "__main__":
    main()
