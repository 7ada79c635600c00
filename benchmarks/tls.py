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

import socket
import ssl
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, ClassVar

from harness.costs import private_bytes
from harness.processes import end_on_sigterm
from harness.secure_servers import Comparison, SecureServers, our_cases
from harness.tables import figure, markdown
from tls_handshakes import CASES as HANDSHAKES
from tls_handshakes import Handshakes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.machine import CpuShares
    from harness.rounds import Series

MESSAGE = bytes(range(64))
# What others sent of a ClientHello before they stalled: its beginning, or records up to the 128 KiB that OpenSSL takes.
HALF_A_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
RECORD = b"\x16\x03\x01\x40\x00"
LONGEST_HELLO = RECORD + b"\x01\x01\xff\xff\x03\x03" + bytes(16_378) + (RECORD + bytes(16_384)) * 6
STALLED = ((0, "nobody", b""), (2_000, "half a hello", HALF_A_HELLO), (500, "the longest hello", LONGEST_HELLO))
TABLES = ("echo", "idle", "stalled", "handshake")
TRIES = 200


class Bench(SecureServers[ssl.SSLSocket]):
    """What is measured of a server."""

    PEER = Path(__file__).resolve().parent / "peers" / "tls_echo.py"
    CASES: ClassVar[Mapping[str, Sequence[str]]] = {
        **our_cases(),
        **{f"anyio.TLSStream, {loop}": ("--by", "anyio", "--loop", loop) for loop in ("uvloop", "asyncio", "trio")},
        **{f"its own TLS, {loop}": ("--by", "asyncio", "--loop", loop) for loop in ("uvloop", "asyncio")},
    }
    AT_ONCE = 32
    FIRST = 100
    IDLE = 500

    def __init__(self, folder: Path, shares: CpuShares, turns: int) -> None:
        super().__init__(folder, shares, turns)
        self.context = ssl.create_default_context()
        self.authority.configure_trust(self.context)

    def connect(self, stack: ExitStack, port: int) -> ssl.SSLSocket:
        """A client that has echoed once."""
        raw = socket.create_connection(("127.0.0.1", port), timeout=30)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client = stack.enter_context(self.context.wrap_socket(raw, server_hostname="localhost"))
        self.take_turns([client], 1)
        return client

    def take_turns(self, clients: Sequence[ssl.SSLSocket], turns: int) -> None:
        """Every client sends one message, then each takes its echo."""
        for _ in range(turns):
            for client in clients:
                client.sendall(MESSAGE)
            for client in clients:
                received = client.recv(len(MESSAGE))
                while len(received) < len(MESSAGE):
                    received += client.recv(len(MESSAGE) - len(received))
                if received != MESSAGE:
                    raise AssertionError("the echo differs")

    def stalled(self, case: str, count: int, sent: bytes) -> tuple[list[float], float]:
        """What so many stalled handshakes do to others and cost.

        Returns:
            Milliseconds from connecting to the first echo, try by try, and bytes of private memory for each of them.
        """
        taken = []
        with ExitStack() as stack:
            server, port = self.start(stack, case)
            with ExitStack() as first:
                self.connect(first, port)
                before = private_bytes(server.pid)
            for _ in range(count):
                other = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
                other.sendall(sent)
            for _ in range(TRIES):
                began = time.perf_counter()
                with ExitStack() as one:
                    self.connect(one, port)
                    taken.append((time.perf_counter() - began) * 1000)
            return taken, (private_bytes(server.pid) - before) / count if count else 0


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
    comparison = Comparison(__doc__, TABLES, "connection")
    comparison.print_facts("esockd-core", "anyio", "uvloop", "trio", openssl=ssl.OPENSSL_VERSION)
    cases = comparison.chosen(Bench.CASES)
    tables = comparison.tables
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), comparison.shares, comparison.turns)
        if "echo" in tables:
            print_costs("echo", "CPU µs/op (range)", comparison.measure(cases, bench.echo), 1)
        if "idle" in tables:
            print_costs("idle", "bytes (range)", comparison.measure(cases, bench.idle), 0)
        if "stalled" in tables:
            print_stalled(bench, cases)
        if "handshake" in tables:
            shaken = {case: Handshakes(Path(folder), case) for case in HANDSHAKES}
            print_handshakes(comparison.measure(shaken, lambda case: shaken[case].measure()))


if __name__ == "__main__":
    main()
