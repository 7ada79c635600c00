"""What a flood of DTLS hellos costs a listener, and what honest clients see of it meanwhile.

    python benchmarks/dtls_flood.py                       each event loop, two minutes
    python benchmarks/dtls_flood.py --only uvloop --seconds 10

Another process sends hellos without a cookie, from 64 addresses that never answer, at rising rates. Meanwhile one
client after the other shakes hands, gets an echo and leaves; it sends again what is lost, as DTLS does, and gives up
after 10 seconds. A session from before the flood sends a message every 20 ms and waits for its echo. `CPU` is that of
the server for each hello that it answered, less what the honest clients cost without a flood. `growth` is that of the
server's private memory since the part without a flood.

Needs pyOpenSSL and trustme (both are in the group "test").
"""

from __future__ import annotations

import argparse
import json
import re
import socket
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import trustme
from OpenSSL import SSL

from dtls import MESSAGE, Bench, Client
from harness.costs import cpu_ns, private_bytes
from harness.machine import CpuShares, facts, share_cpus
from harness.processes import Process, end_on_sigterm, running, serving
from harness.tables import markdown

RATES = (0, 1_000, 5_000, 10_000, 20_000, 50_000)
SOURCES = 64
GIVE_UP_S = 10.0
PAUSE_S = 0.02
ECHO_TIMEOUT_S = 1.0
STEP_TIMEOUT_S = 60


class PatientClient(Client):
    """A client that sends again what is not answered (RFC 6347 section 4.2.4)."""

    def shake_within(self, seconds: float) -> bool:
        """Shake hands; return whether that was done in time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                self.tls.do_handshake()
            except SSL.WantReadError:
                self.flush()
                wait = self.tls.DTLSv1_get_timeout()
                self.socket.settimeout(min(max(wait or 0.001, 0.001), max(end - time.monotonic(), 0.001)))
                try:
                    self.tls.bio_write(self.socket.recv(65_536))
                except TimeoutError:
                    self.tls.DTLSv1_handle_timeout()
            else:
                self.flush()
                return True
        return False

    def leave(self) -> None:
        """Say goodbye, so that the server forgets the session."""
        self.tls.shutdown()
        self.flush()

    def echo_within(self, seconds: float) -> bool:
        """Send the message; return whether its echo came in time."""
        self.socket.settimeout(seconds)
        self.send()
        with suppress(TimeoutError):
            self.take()
            return True
        return False


@dataclass
class Seen:
    """What honest clients have seen.

    Attributes:
        shaken_ms: How long each handshake with its echo took.
        failed: Clients that gave up.
        echoed_ms: How long each echo of the session took that was there before.
        lost: Its echoes that never came.
    """

    shaken_ms: list[float] = field(default_factory=list)
    failed: int = 0
    echoed_ms: list[float] = field(default_factory=list)
    lost: int = 0


def flood(port: int, rate: int, seconds: float) -> None:
    """Send hellos at a steady rate, and print how many."""
    senders = []
    for number in range(SOURCES):
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # nobody reads the answers
        sender.bind((f"127.66.0.{number + 1}", 0))
        sender.connect(("127.0.0.1", port))
        senders.append(sender)
    with Client(port) as client:
        with suppress(SSL.WantReadError):
            client.tls.do_handshake()
        hello = client.tls.bio_read(65_536)
    print("ready", flush=True)
    sys.stdin.readline()
    begun, sent = time.monotonic(), 0
    while (passed := time.monotonic() - begun) < seconds:
        for _ in range(int(passed * rate) - sent):
            senders[sent % SOURCES].send(hello)
            sent += 1
        time.sleep(0.001)
    print(sent, flush=True)


def be_honest(port: int, old: PatientClient, seconds: float) -> Seen:
    """Shake hands and exchange messages until the time is over."""
    seen = Seen()
    end = time.monotonic() + seconds

    def exchange() -> None:
        while time.monotonic() < end:
            began = time.monotonic()
            if old.echo_within(ECHO_TIMEOUT_S):
                seen.echoed_ms.append(1000 * (time.monotonic() - began))
            else:
                seen.lost += 1
            time.sleep(PAUSE_S)

    exchanging = threading.Thread(target=exchange)
    exchanging.start()
    while time.monotonic() < end:
        began = time.monotonic()
        with PatientClient(port) as client:
            if client.shake_within(GIVE_UP_S) and client.echo_within(ECHO_TIMEOUT_S):
                seen.shaken_ms.append(1000 * (time.monotonic() - began))
                client.leave()
            else:
                seen.failed += 1
        time.sleep(PAUSE_S)
    exchanging.join()
    return seen


def stats_of(server: Process) -> dict[str, Any]:
    """What the listener has counted so far."""
    server.write_line()
    found: dict[str, Any] = json.loads(server.read_line(STEP_TIMEOUT_S))
    return found


def rows_of(loop: str, certfile: Path, shares: CpuShares, seconds: float) -> list[list[str]]:
    """The rows of one server, which stays the same through all rates."""
    rows = []
    command = [sys.executable, str(Bench.PEER), "--loop", loop, "--certfile", str(certfile)]
    with serving(loop, command, shares.server) as (server, port), PatientClient(port) as old:
        if not old.shake_within(GIVE_UP_S):
            raise AssertionError("no handshake without a flood")
        honest_us = memory = 0.0
        for rate in RATES:
            words = [sys.executable, __file__, "--flood", str(port), str(rate), "--seconds", str(seconds)]
            before, cpu = stats_of(server), cpu_ns(server.pid)
            with running("flood", words, shares.client) as flooding:
                flooding.read_line(STEP_TIMEOUT_S)
                flooding.write_line()
                seen = be_honest(port, old, seconds)
                sent = int(flooding.read_line(STEP_TIMEOUT_S + seconds))
            spent_us = (cpu_ns(server.pid) - cpu) / 1000
            after = stats_of(server)
            if not rate:
                honest_us, memory = spent_us / len(seen.shaken_ms), private_bytes(server.pid)
            answered, overflow = (after[name] - before[name] for name in ("answered", "overflow"))
            rows.append(
                [
                    loop,
                    f"{sent / seconds:,.0f}/s",
                    f"{100 * overflow / max(1, sent):.1f} %",
                    f"{(spent_us - honest_us * len(seen.shaken_ms)) / answered:.1f}" if rate else "",
                    f"{private_bytes(server.pid) - memory:,.0f}" if rate else "",
                    f"{len(seen.shaken_ms)} / {seen.failed}",
                    in_ms(seen.shaken_ms),
                    f"{len(seen.echoed_ms)} / {seen.lost}",
                    in_ms(seen.echoed_ms),
                ]
            )
            print(*rows[-1], file=sys.stderr, flush=True)
    return rows


def in_ms(times: list[float]) -> str:
    """The median and the longest."""
    return f"{median(times):.1f} / {max(times):.1f}" if times else "-"


def main() -> None:
    """Entry point."""
    end_on_sigterm()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each rate (6)")
    parser.add_argument("--only", type=re.compile, default=re.compile(""), help="event loops whose name matches")
    parser.add_argument("--flood", type=int, nargs=2, metavar=("PORT", "RATE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.flood is not None:
        port, rate = options.flood
        flood(port, rate, options.seconds)
        return
    shares = share_cpus(1)
    for name, value in facts(shares, ("esockd-core", "anyio", "uvloop", "trio", "pyOpenSSL", "cryptography")).items():
        print(f"- {name}: {value}", flush=True)
    head = ["loop", "hellos", "lost in the kernel", "CPU µs/hello", "growth, bytes"]
    head += ["handshakes / failed", "ms (median / longest)", "echoes / lost", "ms (median / longest)"]
    with tempfile.TemporaryDirectory() as folder:
        certfile = Path(folder) / "server.pem"
        trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(certfile))
        loops = filter(options.only.search, ("uvloop", "asyncio", "trio"))
        rows = [row for loop in loops for row in rows_of(loop, certfile, shares, options.seconds)]
    print(f"\n{len(MESSAGE)} bytes a message, {options.seconds:g} s a rate\n\n{markdown(head, rows)}", flush=True)


if __name__ == "__main__":
    main()
