"""What `esockd top` costs: itself, and the server it looks at.

    python benchmarks/dashboard.py

One server with 20 listeners and 10,000 connections, some of which send all the time, so that the figures on the screen
change. The dashboard runs at 1 Hz in a terminal of 160 columns and 40 lines. The figures are parts of one core over the
time of a round: what the dashboard's processes used, and what the server used beyond its use in the rounds without a
dashboard, which take turns with the others. The start of the dashboard is not in them.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import pty
import signal
import socket
import struct
import sys
import tempfile
import termios
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from harness.costs import cpu_ns, family
from harness.machine import facts, raise_descriptor_limit, share_cpus
from harness.processes import end_on_sigterm, running
from harness.tables import markdown

if TYPE_CHECKING:
    from collections.abc import Iterator

PEER = Path(__file__).resolve().parent / "peers" / "esockd_inspected.py"
ESOCKD = Path(sys.executable).with_name("esockd")
COLUMNS, LINES = 160, 40
START_S = 4.0
MESSAGE = bytes(100)
SENT_PER_S = 40  # messages over all connections
VIEWS = {"1 listeners": b"1", "3 rejects": b"3", "1 with details": b"1\t", "5 connections": b"5"}


class Terminal:
    """A dashboard on a pseudo-terminal."""

    def __init__(self, name: str) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execv(ESOCKD, [str(ESOCKD), "top", "-i", name])
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        os.set_blocking(self.fd, False)
        self.bytes = 0

    def read(self) -> None:
        """Take what it writes."""
        with contextlib.suppress(BlockingIOError):
            self.bytes += len(os.read(self.fd, 1 << 20))

    def close(self) -> None:
        """End it."""
        os.kill(self.pid, signal.SIGTERM)
        os.waitpid(self.pid, 0)
        os.close(self.fd)


@contextlib.contextmanager
def showing(name: str, keys: bytes | None) -> Iterator[Terminal | None]:
    """Run a dashboard with keys pressed; none where there are no keys."""
    if keys is None:
        yield None
        return
    terminal = Terminal(name)
    try:
        yield terminal
    finally:
        terminal.close()


def talk(clients: list[socket.socket], terminal: Terminal | None, seconds: float) -> None:
    """Send messages and take their echoes, and what the dashboard writes, for a time."""
    turn = 0
    deadline = due = time.monotonic()
    deadline += seconds
    while (now := time.monotonic()) < deadline:
        if now < due:
            time.sleep(due - now)
        due += 1 / SENT_PER_S
        turn = (turn + 7_919) % len(clients)
        clients[turn].sendall(MESSAGE)
        clients[turn].recv(len(MESSAGE), socket.MSG_WAITALL)
        if terminal is not None:
            terminal.read()


def measure(
    name: str, server: int, clients: list[socket.socket], keys: bytes | None, seconds: float
) -> tuple[float, float, float]:
    """The parts of a core that dashboard and server used in a round, and the bytes a second that were drawn."""
    with showing(name, keys) as terminal:
        if terminal is not None:
            talk(clients, terminal, START_S)
            os.write(terminal.fd, keys or b"")
            talk(clients, terminal, 1.0)
        shown = family(terminal.pid) if terminal is not None else []
        before, server_before = cpu_ns(*shown), cpu_ns(server)
        drawn = 0 if terminal is None else terminal.bytes
        began = time.monotonic()
        talk(clients, terminal, seconds)
        took_ns = (time.monotonic() - began) * 1e9
        drawn = 0 if terminal is None else terminal.bytes - drawn
        return (
            (cpu_ns(*shown) - before) / took_ns,
            (cpu_ns(server) - server_before) / took_ns,
            drawn / took_ns * 1e9,
        )


def main() -> None:
    """Print the facts and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=15.0)
    given = parser.parse_args()
    end_on_sigterm()
    raise_descriptor_limit()
    shares = share_cpus(1)
    for title, value in facts(shares, ("esockd-cli", "esockd-core", "anyio", "uvloop")).items():
        print(f"- {title}: {value}")
    print(f"- connections: {given.connections:,}; rounds of {given.seconds:g} s: {given.rounds}; the median counts\n")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ESOCKD_RUNTIME_DIR"] = folder
        with running("the server", (sys.executable, str(PEER), "bench"), shares.server) as process:
            os.sched_setaffinity(0, shares.client)
            ports = [int(port) for port in process.read_line(timeout_s=20).split()]
            clients = [
                socket.create_connection(("127.0.0.1", ports[index % len(ports)])) for index in range(given.connections)
            ]
            rounds: dict[str, list[tuple[float, float, float]]] = {view: [] for view in ("none", *VIEWS)}
            for _ in range(given.rounds):
                for view, figures in rounds.items():
                    figures.append(measure("bench", process.pid, clients, VIEWS.get(view), given.seconds))
    without = [server for _, server, _ in rounds.pop("none")]
    rows = []
    for view, figures in rounds.items():
        more = median(server - alone for (_, server, _), alone in zip(figures, without, strict=True))
        client, drawn = median(client for client, _, _ in figures), median(drawn for _, _, drawn in figures)
        rows.append([view, f"{client:.2%}", f"{more:.2%}", f"{drawn:,.0f}"])
    print(markdown(("view", "dashboard, of a core", "server more, of a core", "bytes drawn a second"), rows))
    print(f"\nWithout a dashboard the server used {median(without):.2%} of a core.")


if __name__ == "__main__":
    main()
