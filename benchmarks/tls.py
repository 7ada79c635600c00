"""Compare TLS echo servers in one run, and see what stalled handshakes do to others.

    python benchmarks/tls.py                    some minutes
    python benchmarks/tls.py --rounds 5 --only uvloop
    python benchmarks/tls.py handshake          some seconds

`echo`: CPU time of the server for one 64-byte message in and out over TLS 1.3, 32 connections, each message compared.
`idle`: growth of the server's private memory for a connection that echoed once and is held. `stalled`: how long a
client takes to connect, shake hands and get one echo while others stall in theirs, and what these occupy. `handshake`:
CPU time of the engine for one handshake, and the longest step of it: what the event loop stands still for. Medians over
interleaved rounds; ratios are taken within each round. Needs trustme (it is in the group "test") for its certificate.
"""

from __future__ import annotations

import argparse
import re
import socket
import ssl
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median, quantiles

import trustme

from harness.costs import cpu_ns, private_bytes
from harness.machine import CpuShares, facts, raise_descriptor_limit, share_cpus
from harness.processes import end_on_sigterm, serving
from harness.rounds import Sample, Series, interleaved
from harness.tables import figure, markdown
from tls_handshakes import CASES as HANDSHAKES
from tls_handshakes import Handshakes

PEER = Path(__file__).resolve().parent / "peers" / "tls_echo.py"
CONNECTIONS = 32
MESSAGE = bytes(range(64))
WARM_UP_TURNS = 30
FIRST_CONNECTIONS = 100
IDLE_CONNECTIONS = 500
# What others sent of a ClientHello before they stalled: its beginning, or records up to the 128 KiB that OpenSSL takes.
HALF_A_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
RECORD = b"\x16\x03\x01\x40\x00"
LONGEST_HELLO = RECORD + b"\x01\x01\xff\xff\x03\x03" + bytes(16_378) + (RECORD + bytes(16_384)) * 6
STALLED = ((0, "nobody", b""), (2_000, "half a hello", HALF_A_HELLO), (500, "the longest hello", LONGEST_HELLO))
TABLES = ("echo", "idle", "stalled", "handshake")
TRIES = 200

CASES = {
    **{
        f"esockd {style}, {loop}": ("--by", "esockd", "--style", style, "--loop", loop)
        for style in ("coroutine", "callback")
        for loop in ("uvloop", "asyncio", "trio")
    },
    **{f"anyio.TLSStream, {loop}": ("--by", "anyio", "--loop", loop) for loop in ("uvloop", "asyncio", "trio")},
    **{f"its own TLS, {loop}": ("--by", "asyncio", "--loop", loop) for loop in ("uvloop", "asyncio")},
}


class Bench:
    """What the measurements share."""

    def __init__(self, folder: Path, shares: CpuShares, turns: int) -> None:
        authority = trustme.CA()
        self.certfile = folder / "server.pem"
        authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(self.certfile))
        self.context = ssl.create_default_context()
        authority.configure_trust(self.context)
        self.shares = shares
        self.turns = turns

    def command(self, case: str) -> tuple[str, ...]:
        """How the server of a case is run."""
        return (sys.executable, str(PEER), *CASES[case], "--certfile", str(self.certfile))

    def connect(self, port: int) -> ssl.SSLSocket:
        """A client that has echoed once."""
        raw = socket.create_connection(("127.0.0.1", port), timeout=30)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client = self.context.wrap_socket(raw, server_hostname="localhost")
        take_turns([client], 1)
        return client

    def echo(self, case: str) -> Sample:
        """CPU time of the server for a message, in microseconds."""
        with ExitStack() as stack:
            server, port = stack.enter_context(serving(case, self.command(case), self.shares.server))
            clients = [stack.enter_context(self.connect(port)) for _ in range(CONNECTIONS)]
            take_turns(clients, WARM_UP_TURNS)
            before = cpu_ns(server.pid)
            take_turns(clients, self.turns)
            return Sample((cpu_ns(server.pid) - before) / 1000 / (self.turns * CONNECTIONS), {})

    def idle(self, case: str) -> Sample:
        """Private memory of the server for a connection, in bytes."""
        with ExitStack() as stack:
            server, port = stack.enter_context(serving(case, self.command(case), self.shares.server))
            sizes = []
            for count in (FIRST_CONNECTIONS, IDLE_CONNECTIONS):
                for _ in range(count):
                    stack.enter_context(self.connect(port))
                sizes.append(private_bytes(server.pid))
            return Sample((sizes[1] - sizes[0]) / IDLE_CONNECTIONS, {})

    def stalled(self, case: str, count: int, sent: bytes) -> tuple[list[float], float]:
        """What so many stalled handshakes do to others and cost.

        Returns:
            Milliseconds from connecting to the first echo, try by try, and bytes of private memory for each of them.
        """
        taken = []
        with ExitStack() as stack:
            server, port = stack.enter_context(serving(case, self.command(case), self.shares.server))
            with self.connect(port):
                before = private_bytes(server.pid)
            for _ in range(count):
                other = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
                other.sendall(sent)
            for _ in range(TRIES):
                began = time.perf_counter()
                with self.connect(port):
                    taken.append((time.perf_counter() - began) * 1000)
            return taken, (private_bytes(server.pid) - before) / count if count else 0


def take_turns(clients: list[ssl.SSLSocket], turns: int) -> None:
    """Every client sends one message, then each takes its echo, so many times over."""
    for _ in range(turns):
        for client in clients:
            client.sendall(MESSAGE)
        for client in clients:
            received = client.recv(len(MESSAGE))
            while len(received) < len(MESSAGE):
                received += client.recv(len(MESSAGE) - len(received))
            if received != MESSAGE:
                raise AssertionError("the echo differs")


def print_costs(title: str, unit: str, results: dict[str, Series], digits: int) -> None:
    """A table of what each server costs, beside AnyIO's on the same loop."""
    rows = []
    for case, series in results.items():
        anyios = results.get(f"anyio.TLSStream, {case.rpartition(', ')[2]}")
        rows.append([case, figure(series, digits), "" if anyios is None else f"{series.ratio_to(anyios):.2f}"])
    print(f"\n## {title}\n\n{markdown(['server', unit, 'vs anyio, same loop'], rows)}", flush=True)


def print_stalled(bench: Bench, cases: list[str]) -> None:
    """A table of what a client waits beside stalled handshakes."""
    rows = []
    for case in (case for case in cases if case.startswith("esockd")):
        for count, what, sent in STALLED:
            taken, size = bench.stalled(case, count, sent)
            others = f"{count:,} sent {what}" if count else what
            rows.append([case, others, f"{median(taken):.2f}", f"{quantiles(taken, n=100)[98]:.2f}", f"{size:,.0f}"])
    header = ["server", "others", "median ms", "p99 ms", "bytes for each other"]
    print(f"\n## stalled\n\n{markdown(header, rows)}", flush=True)


def print_handshakes(results: dict[str, Series]) -> None:
    """A table of what a handshake costs, and of its longest step."""
    rows = []
    for case, series in results.items():
        longest = sorted(step for sample in series.samples for step in sample.report["longest_us"])
        rows.append(
            [
                case,
                figure(series, 0),
                f"{1_000_000 / series.middle:,.0f}",
                f"{median(longest):,.0f}",
                f"{quantiles(longest, n=100)[98]:,.0f}",
            ]
        )
    header = ["key", "CPU µs/handshake (range)", "a second of CPU", "longest step µs, median", "p99"]
    print(f"\n## handshake\n\n{markdown(header, rows)}", flush=True)


def main() -> None:
    """Print the facts and the tables."""
    end_on_sigterm()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=", ".join(TABLES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--turns", type=int, default=300, help="messages of each connection")
    parser.add_argument("--only", type=re.compile, default=re.compile(""), help="cases whose name matches")
    options = parser.parse_args()
    tables = options.tables or TABLES
    if not set(tables) <= set(TABLES):
        parser.error(f"a table is one of {', '.join(TABLES)}")
    raise_descriptor_limit()
    shares = share_cpus(1)
    for name, value in facts(shares, ("esockd-core", "anyio", "uvloop", "trio")).items():
        print(f"- {name}: {value}")
    print(f"- OpenSSL: {ssl.OPENSSL_VERSION}", flush=True)
    cases = [case for case in CASES if options.only.search(case)]

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), shares, options.turns)
        if "echo" in tables:
            print_costs("echo", "CPU µs/op (range)", interleaved(cases, options.rounds, bench.echo, tell), 1)
        if "idle" in tables:
            print_costs("idle", "bytes (range)", interleaved(cases, options.rounds, bench.idle, tell), 0)
        if "stalled" in tables:
            print_stalled(bench, cases)
        if "handshake" in tables:
            shaken = {case: Handshakes(Path(folder), case) for case in HANDSHAKES}
            print_handshakes(interleaved(shaken, options.rounds, lambda case: shaken[case].measure(), tell))


if __name__ == "__main__":
    main()
