"""Hold very many connections with `esockd open --workers`, send messages over them, and print what each of them costs.

    python benchmarks/million.py                                          1,000 and 10,000 connections
    python benchmarks/million.py --connections 250000 --rate 50000        as many as esockd's own headline
    python benchmarks/million.py --connections 1000 10000 50000 100000 250000 500000 1000000 --rate 0.2x

With `--rate 0.2x` each connection sends a message in five seconds. The server and the clients run on the same
processors, because so many clients need more than one. The clients come from 64 addresses of 127.0.0.0/8.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio

from esockd_core import ControlClient
from harness.costs import cpu_ns, family, proportional_bytes
from harness.crowd import crowd
from harness.errors import BenchmarkError
from harness.kernel import kernel_memory, open_files
from harness.machine import CpuShares, facts, raise_descriptor_limit
from harness.processes import Process, end_on_sigterm, running
from harness.tables import markdown
from peers.million_handlers import read_pauses

if TYPE_CHECKING:
    from collections.abc import Sequence

    from esockd_core import Stats

PEERS: Final = Path(__file__).resolve().parent / "peers"
PACKAGES: Final = ("esockd-core", "esockd-cli", "anyio", "uvloop", "trio")
FULLEST: Final = 0.8  # of the descriptors of a worker: the kernel spreads clients at random
BACKLOG: Final = 4096
QUESTIONS: Final = 20
MOST_WORKERS: Final = 64
PAUSE_SHARES: Final = (0.5, 0.99, 0.999, 1)


@dataclass(frozen=True)
class Held:
    """One number of connections, measured.

    Attributes:
        connections: How many were held.
        workers: How many worker processes held them.
        opened_s: Seconds in which they were opened.
        accept_us: CPU time of the server to accept a connection and echo its first message.
        own_bytes: Memory of the server's processes for a connection; without what they have without any.
        server_mib: Memory of all processes of the server, shared pages once.
        kernel_bytes: Memory of the kernel for a connection, both ends.
        idle_us: CPU time of the server for a connection in a second without messages: timeouts and statistics.
        stats_ms: Time until the statistics of the listener have come from the control socket.
        messages: Messages that came back.
        wanted: Messages that were to be sent.
        echo_us: CPU time of the server for one.
        latencies_ms: At the shares 0.5, 0.9, 0.99, 0.999 and 1.
        lost: Messages lost, changed, and connections that failed.
        first_error: The first of those, in words.
        pauses: How often Python's garbage collector ran, in all workers.
        pauses_ms: How long, at the shares 0.5, 0.99, 0.999 and 1.
        pauses_cpu_ms: The same in CPU time: without the time in which other processes had the processor.
        leaving_cpu_ms: The longest in CPU time, also while all clients left at once.
        spread: Standard deviation of the connections of a worker, divided by their mean.
    """

    connections: int
    workers: int
    opened_s: float
    accept_us: float
    own_bytes: float
    server_mib: float
    kernel_bytes: float
    idle_us: float
    stats_ms: float
    messages: int
    wanted: int
    echo_us: float
    latencies_ms: tuple[float, ...]
    lost: tuple[int, int, int]
    first_error: str | None
    pauses: int
    pauses_ms: tuple[float, ...]
    pauses_cpu_ms: tuple[float, ...]
    leaving_cpu_ms: float
    spread: float


def quantile(values: Sequence[float], share: float) -> float:
    """The value that this share of them does not exceed."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else 0.0


async def time_stats(instance: str) -> float:
    """Seconds until the statistics have come, the middle one of several questions."""
    async with ControlClient(instance, timeout=60) as client:
        (status,) = await client.listeners()
        control = client.listener(status.name)
        took = []
        for _ in range(QUESTIONS):
            began = time.perf_counter()
            await control.get_stats()
            took.append(time.perf_counter() - began)
    return statistics.median(took)


class Server:
    """`esockd open` with workers.

    Args:
        process: Its parent process.
        port: Where it listens.

    Attributes:
        pids: All processes, the parent first.
        workers: The others.
    """

    def __init__(self, process: Process, port: int) -> None:
        self.process = process
        self.pids = family(process.pid)
        self.workers = self.pids[1:]
        self.port = port
        self._idle_files = [open_files(pid) for pid in self.workers]

    def spread(self) -> float:
        """Standard deviation over mean of the connections of a worker."""
        held = [open_files(pid) - idle for pid, idle in zip(self.workers, self._idle_files, strict=True)]
        return statistics.pstdev(held) / statistics.mean(held)

    def fate(self, instance: str) -> str:
        """Why connections failed, as far as the server knows: refusals, ends by reason, replaced workers, its log."""
        stats = anyio.run(get_stats, instance)
        replaced = len(set(self.pids) - set(family(self.process.pid)))
        counted = (
            f"{stats.accepted:,} accepted, {stats.refused:,} refused, {stats.closed_sys_limit:,} times no descriptor"
        )
        return f"{counted}, {replaced} workers replaced, ended: {stats.shutdown_counts}{self.process.last_words()}"


async def get_stats(instance: str) -> Stats:
    """The counters of the listener."""
    async with ControlClient(instance, timeout=60) as client:
        (status,) = await client.listeners()
        return await client.listener(status.name).get_stats()


def start(options: argparse.Namespace, connections: int, stack: ExitStack, pauses: Path, runtime: str) -> Server:
    """Start the server with as many workers as it takes."""
    files = options.files
    count = max(options.workers, -(-connections // int(files * FULLEST)))
    if count > MOST_WORKERS:
        reason = f"{count} workers of {files} descriptors each, and at most {MOST_WORKERS} are possible"
        raise BenchmarkError(f"{connections} connections take {reason}")
    os.environ |= {"MILLION_PAUSES": str(pauses), "ESOCKD_RUNTIME_DIR": runtime}
    handler = "million_handlers:" + ("Echo" if options.style == "callback" else "echo")
    command = [str(Path(sys.executable).with_name("esockd")), "open", handler, "127.0.0.1:0", "--app-dir", str(PEERS)]
    command += ["--workers", str(count), "--loop", options.loop, "-c", str(connections + 1000), "-i", "million"]
    command += [word for each in options.tcp_option for word in ("--tcp-option", each)]
    process = stack.enter_context(running("esockd", [*command, "--backlog", str(BACKLOG)], options.cpus))
    return Server(process, int(process.read_line(120).rpartition(":")[2]))


def hold(options: argparse.Namespace, connections: int, say: Any) -> Held:
    """Measure one number of connections."""
    rate = int(connections * float(options.rate[:-1])) if options.rate.endswith("x") else int(options.rate)
    with ExitStack() as stack:
        pauses, runtime = (Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(2))
        server = start(options, connections, stack, pauses, str(runtime))
        own, kernel, spent = proportional_bytes(*server.pids), kernel_memory(), cpu_ns(*server.pids)
        began = time.monotonic()
        clients = stack.enter_context(
            crowd(server.port, connections, rate, options.seconds, options.files, options.cpus, options.timeout)
        )
        clients.wait_until("ready")
        opened_s = time.monotonic() - began
        say(f"{connections:,} connections on {len(server.workers)} workers in {opened_s:.1f} s")
        accept_us = (cpu_ns(*server.pids) - spent) / 1000 / connections
        time.sleep(options.settle)
        spent = cpu_ns(*server.pids)
        time.sleep(options.idle)
        idle_us = (cpu_ns(*server.pids) - spent) / 1000 / connections / options.idle
        held, held_kernel = proportional_bytes(*server.pids), kernel_memory()
        spread = server.spread()
        stats_s = anyio.run(time_stats, str(runtime / "million.sock"))
        spent = cpu_ns(*server.pids)
        clients.go_on()
        clients.wait_until("measured")
        spent = cpu_ns(*server.pids) - spent
        found = read_pauses(pauses)
        fate = server.fate(str(runtime / "million.sock"))
        report = clients.report()  # now all of them leave at once
        longest = max(used_s for _, _, used_s in [(0, 0.0, 0.0), *read_pauses(pauses)])
        say(f"{report.operations:,} messages, {report.lost} lost, {report.errors} errors {report.first_error or ''}")
        if report.lost or report.errors:
            say(fate)
    grown = held_kernel.slab + held_kernel.tcp - kernel.slab - kernel.tcp
    return Held(
        connections=connections,
        workers=len(server.workers),
        opened_s=opened_s,
        accept_us=accept_us,
        own_bytes=(held - own) / connections,
        server_mib=held / (1 << 20),
        kernel_bytes=grown / connections,
        idle_us=idle_us,
        stats_ms=1000 * stats_s,
        messages=report.operations,
        wanted=int(rate * options.seconds),
        echo_us=spent / 1000 / max(1, report.operations),
        latencies_ms=tuple(report.percentile_us(share) / 1000 for share in (0.5, 0.9, 0.99, 0.999, 1)),
        lost=(report.lost, report.corrupt, report.errors),
        first_error=report.first_error,
        pauses=len(found),
        pauses_ms=tuple(1000 * quantile([pause_s for _, pause_s, _ in found], share) for share in PAUSE_SHARES),
        leaving_cpu_ms=1000 * longest,
        pauses_cpu_ms=tuple(1000 * quantile([used_s for _, _, used_s in found], share) for share in PAUSE_SHARES),
        spread=spread,
    )


def table(results: Sequence[Held]) -> str:
    """All figures, a column for each number of connections."""

    def joined(values: Sequence[float]) -> str:
        return " / ".join(f"{value:.2g}" if value < 10 else f"{value:,.0f}" for value in values)

    rows: list[tuple[str, Any]] = [
        ("workers", lambda held: str(held.workers)),
        ("opened in, s", lambda held: f"{held.opened_s:.1f}"),
        ("CPU to accept and echo once, µs", lambda held: f"{held.accept_us:.0f}"),
        ("memory of the server, MiB (PSS)", lambda held: f"{held.server_mib:,.0f}"),
        ("of a connection, bytes", lambda held: f"{held.own_bytes:,.0f}"),
        ("of the kernel for both ends, bytes", lambda held: f"{held.kernel_bytes:,.0f}"),
        ("CPU of an idle connection in a second, µs", lambda held: f"{held.idle_us:.2f}"),
        ("statistics over the control socket, ms", lambda held: f"{held.stats_ms:.1f}"),
        ("messages sent / wanted", lambda held: f"{held.messages:,} / {held.wanted:,}"),
        ("CPU of a message, µs", lambda held: f"{held.echo_us:.1f}"),
        ("latency p50 / 90 / 99 / 99.9 / max, ms", lambda held: joined(held.latencies_ms)),
        ("lost / corrupt / failed", lambda held: " / ".join(map(str, held.lost))),
        ("collections", lambda held: f"{held.pauses:,}"),
        ("pause p50 / 99 / 99.9 / max, ms", lambda held: joined(held.pauses_ms)),
        ("the same in CPU time, ms", lambda held: joined(held.pauses_cpu_ms)),
        ("longest, also while all leave, CPU ms", lambda held: f"{held.leaving_cpu_ms:.1f}"),
        ("spread over workers, deviation/mean", lambda held: f"{held.spread:.3f}"),
    ]
    header = ["connections", *(f"{held.connections:,}" for held in results)]
    return markdown(header, [[name, *(cell(held) for held in results)] for name, cell in rows])


def main() -> None:
    """Measure every number of connections, and print the table after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--connections", type=int, nargs="+", default=[1_000, 10_000], help="how many to hold (1000 10000)")
    add("--rate", default="0.2x", help="messages a second; with x at the end, for each connection (0.2x)")
    add("--seconds", type=float, default=20, help="how long to send (20)")
    add("--settle", type=float, default=3, help="seconds between opening and measuring (3)")
    add("--idle", type=float, default=10, help="seconds without messages (10)")
    add("--timeout", type=float, default=60, help="seconds without progress after which messages are lost (60)")
    add("--workers", type=int, default=2, help="how many worker processes there are at least (2)")
    add("--files", type=int, default=raise_descriptor_limit(), help="descriptors for each process (as many as allowed)")
    add("--style", choices=["coroutine", "callback"], default="coroutine", help="of the handler (coroutine)")
    add("--loop", choices=["asyncio", "uvloop", "trio"], default="uvloop", help="of the workers (uvloop)")
    add("--tcp-option", action="append", default=[], metavar="KEY=VALUE", help="as `esockd open` takes it; repeatable")
    add("--json", type=Path, help="a file for all figures")
    options = parser.parse_args()
    end_on_sigterm()
    options.cpus = frozenset(os.sched_getaffinity(0))
    print(f"{options.style} handler on {options.loop}, {options.rate} messages a second for {options.seconds:g} s\n")
    for name, value in facts(CpuShares(options.cpus, options.cpus), PACKAGES).items():
        print(f"- {name}: {value}")
    results: list[Held] = []
    for connections in options.connections:
        try:
            results.append(hold(options, connections, lambda line: print(line, file=sys.stderr, flush=True)))
        except BenchmarkError as error:
            print(f"\n{connections:,} connections were not held: {error}")
            break
        print(f"\n{table(results)}", flush=True)
        if options.json:
            options.json.write_text(json.dumps([asdict(held) for held in results], indent=1))


if __name__ == "__main__":
    main()
