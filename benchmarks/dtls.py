"""Compare DTLS echo servers in one run: ours on each event loop, and trio's DTLSEndpoint.

    python benchmarks/dtls.py                    some minutes
    python benchmarks/dtls.py echo --rounds 5 --only trio

`echo`: CPU time of the server for one 64-byte message in and out, 16 sessions that take turns, each message compared.
`handshake`: the same for one handshake with the first echo (ECDSA P-256, no resumption). `idle`: growth of the server's
private memory for a session that echoed once and is held. `hello`: CPU time for one hello without a cookie, and growth
of private memory over all of them. `burst`: the longest CPU time between two turns of another task, in this process,
when 64 hellos with proven cookies wait at once. Medians over interleaved rounds; ratios are taken within each round.
Needs pyOpenSSL and trustme (both are in the group "test").
"""

from __future__ import annotations

import asyncio
import socket
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

import trustme
from OpenSSL import SSL

from esockd_core import DatagramConnection, DtlsOptions, open_listener
from harness.costs import cpu_ns, private_bytes
from harness.processes import end_on_sigterm
from harness.rounds import Sample, Series
from harness.secure_servers import Comparison, SecureServers, our_cases
from harness.tables import figure, markdown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MESSAGE = bytes(range(64))
HANDSHAKES = 100
HELLOS = 100_000
AT_ONCE = 64  # hellos that wait in the server's socket
BURST = 64  # hellos with proven cookies
KEYS = {"ECDSA P-256": trustme.KeyType.ECDSA, "RSA 2048": trustme.KeyType.RSA}
TABLES = ("echo", "handshake", "idle", "hello", "burst")
REFERENCE = "trio.DTLSEndpoint"


class Client:
    """One session, by a socket of its own."""

    def __init__(self, port: int) -> None:
        context = SSL.Context(SSL.DTLS_CLIENT_METHOD)
        context.set_options(SSL.OP_NO_QUERY_MTU)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.settimeout(30)
        self.socket.connect(("127.0.0.1", port))
        self.tls = SSL.Connection(context)
        self.tls.set_ciphertext_mtu(1_400)
        self.tls.set_connect_state()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def shake(self) -> Client:
        """Finish the handshake."""
        while True:
            try:
                self.tls.do_handshake()
            except SSL.WantReadError:
                self.flush()
                self.tls.bio_write(self.socket.recv(65_536))
            else:
                self.flush()
                return self

    def flush(self) -> None:
        """Send what OpenSSL has written."""
        with suppress(SSL.WantReadError):
            self.socket.send(self.tls.bio_read(65_536))

    def send(self) -> None:
        """Send the message."""
        self.tls.send(MESSAGE)
        self.flush()

    def take(self) -> None:
        """Take its echo."""
        while True:
            self.tls.bio_write(self.socket.recv(65_536))
            with suppress(SSL.WantReadError):
                if self.tls.recv(65_536) != MESSAGE:
                    raise AssertionError("the echo differs")
                return

    def echo(self) -> None:
        """Send the message, and take its echo."""
        self.send()
        self.take()


class Bench(SecureServers[Client]):
    """What is measured of a server."""

    PEER = Path(__file__).resolve().parent / "peers" / "dtls_echo.py"
    CASES: ClassVar[Mapping[str, Sequence[str]]] = {**our_cases(), REFERENCE: ("--by", "trio")}
    AT_ONCE = 16
    FIRST = 50
    IDLE = 300

    def connect(self, stack: ExitStack, port: int) -> Client:
        """A session that has echoed once."""
        client = stack.enter_context(Client(port)).shake()
        client.echo()
        return client

    def take_turns(self, clients: Sequence[Client], turns: int) -> None:
        """Every session sends one message, then each takes its echo."""
        for _ in range(turns):
            for client in clients:
                client.send()
            for client in clients:
                client.take()

    def handshake(self, case: str) -> Sample:
        """CPU time of the server for a handshake and an echo, in microseconds."""
        with ExitStack() as stack:
            server, port = self.start(stack, case)
            self.connect(stack, port)
            before = cpu_ns(server.pid)
            for _ in range(HANDSHAKES):
                self.connect(stack, port)
            return Sample((cpu_ns(server.pid) - before) / 1000 / HANDSHAKES, {})

    def burst(self, case: str) -> Sample:
        """The longest CPU time that a burst of hellos keeps another task of the same event loop, in milliseconds."""
        certfile = self.certfile.with_name("burst.pem")
        certificate = trustme.CA(key_type=KEYS[case]).issue_cert("localhost", key_type=KEYS[case])
        certificate.private_key_and_cert_chain_pem.write_to_path(str(certfile))
        return Sample(asyncio.run(longest_turn_ms(certfile)), {})

    def hello(self, case: str) -> Sample:
        """CPU time of the server for a hello that proves nothing, in microseconds, and its growth in bytes."""
        with ExitStack() as stack:
            server, port = self.start(stack, case)
            client = stack.enter_context(Client(port))
            with suppress(SSL.WantReadError):
                client.tls.do_handshake()
            hello = client.tls.bio_read(65_536)
            ask(client.socket, hello, 1_000)
            cpu, memory = cpu_ns(server.pid), private_bytes(server.pid)
            ask(client.socket, hello, HELLOS)
            grown = private_bytes(server.pid) - memory
            return Sample((cpu_ns(server.pid) - cpu) / 1000 / HELLOS, {"grown": grown})


async def longest_turn_ms(certfile: Path) -> float:
    """Let hellos wait at a listener, and measure the longest CPU time between two turns of this task."""

    async def ignore(connection: DatagramConnection) -> None:
        await connection.receive()

    with ExitStack() as stack:
        dtls = DtlsOptions(certfile=str(certfile))
        async with open_listener("burst", "dtls://127.0.0.1:0", ignore, dtls=dtls, max_handshaking=BURST) as listener:
            assert listener.port is not None
            clients = [stack.enter_context(Client(listener.port)) for _ in range(BURST)]
            for client in clients:
                with suppress(SSL.WantReadError):
                    client.tls.do_handshake()
                client.flush()
                await asyncio.to_thread(client.socket.recv, 65_536, socket.MSG_PEEK)
                client.tls.bio_write(client.socket.recv(65_536))
                with suppress(SSL.WantReadError):
                    client.tls.do_handshake()
            for client in clients:
                client.flush()
            longest_ns, before_ns = 0, time.thread_time_ns()
            while listener.stats().entering < BURST:
                await asyncio.sleep(0)
                now_ns = time.thread_time_ns()
                longest_ns, before_ns = max(longest_ns, now_ns - before_ns), now_ns
            await listener.drain(timeout=0)
    return longest_ns / 1_000_000


def ask(sock: socket.socket, hello: bytes, times: int) -> None:
    """Send a hello so many times, and take every question."""
    for _ in range(times // AT_ONCE):
        for _ in range(AT_ONCE):
            sock.send(hello)
        for _ in range(AT_ONCE):
            sock.recv(65_536)


def print_costs(title: str, unit: str, results: dict[str, Series], digits: int) -> None:
    """A table of what each server costs, beside trio's."""
    rows = []
    trios = results.get(REFERENCE)
    for case, series in results.items():
        rows.append([case, figure(series, digits), "" if trios is None else f"{series.ratio_to(trios):.2f}"])
        if "grown" in series.samples[0].report:
            rows[-1].append(f"{max(sample.report['grown'] for sample in series.samples):,}")
    more = ["growth, most"] if len(rows[0]) > 3 else []
    print(f"\n## {title}\n\n{markdown(['server', unit, f'vs {REFERENCE}', *more], rows)}", flush=True)


def main() -> None:
    """Print the facts and the tables."""
    end_on_sigterm()
    comparison = Comparison(__doc__, TABLES, "session")
    packages = ("esockd-core", "anyio", "uvloop", "trio", "pyOpenSSL", "cryptography")
    comparison.print_facts(*packages, openssl=SSL.OpenSSL_version(SSL.OPENSSL_VERSION).decode())
    cases = comparison.chosen(Bench.CASES)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), comparison.shares, comparison.turns)
        for table, unit, measure, digits in (
            ("echo", "CPU µs/op (range)", bench.echo, 1),
            ("handshake", "CPU µs/handshake (range)", bench.handshake, 0),
            ("idle", "bytes (range)", bench.idle, 0),
            ("hello", "CPU µs/hello (range)", bench.hello, 1),
        ):
            if table in comparison.tables:
                print_costs(table, unit, comparison.measure(cases, measure), digits)
        if "burst" in comparison.tables:
            results = comparison.measure(KEYS, bench.burst)
            rows = [[key, figure(series, 1)] for key, series in results.items()]
            head = ["key of the server", "CPU ms of the longest turn (range)"]
            print(f"\n## burst\n\n{markdown(head, rows)}", flush=True)


if __name__ == "__main__":
    main()
