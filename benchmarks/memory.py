"""How much memory clients can make a listener hold: pushed at handlers that do not keep up, and left unread.

    python benchmarks/memory.py

`hold`: one client pushes 1 GiB at a handler that never reads. `echo`: it pushes 1 GiB at an echo and never reads the
replies. `pour`: 100 clients never read while the handler sends for ever. Each server is a fresh process. The figures:
what the client could push before it was stuck for a second (kernel buffers included), and the largest growth of the
server's private memory meanwhile.
"""

from __future__ import annotations

import itertools
import select
import socket
import sys
import time
from pathlib import Path

from harness.costs import private_bytes
from harness.machine import facts, share_cpus
from harness.processes import Process, end_on_sigterm, serving
from harness.tables import markdown

PEER = Path(__file__).resolve().parent / "peers" / "esockd_memory.py"
MIB = 1 << 20
PUSH_BYTES = 1 << 30
STUCK_S = 1.0
SILENT_CLIENTS = 100
WATCH_S = 3.0


def push(process: Process, port: int) -> tuple[int, int]:
    """Push until all is taken or nothing more is; the bytes taken, and the largest private memory seen."""
    piece = bytes(MIB)
    taken = most = 0
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.setblocking(False)
        looked_at = 0.0
        while taken < PUSH_BYTES and select.select([], [client], [], STUCK_S)[1]:
            taken += client.send(piece)
            if time.monotonic() - looked_at > 0.02:
                looked_at = time.monotonic()
                most = max(most, private_bytes(process.pid))
        return taken, max(most, private_bytes(process.pid))


def leave_unread(process: Process, port: int) -> tuple[int, int]:
    """Connect and never read; how many clients, and the largest private memory seen."""
    clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(SILENT_CLIENTS)]
    most = 0
    deadline = time.monotonic() + WATCH_S
    while time.monotonic() < deadline:
        most = max(most, private_bytes(process.pid))
        time.sleep(0.02)
    for client in clients:
        client.close()
    return SILENT_CLIENTS, most


def warm_up(port: int) -> None:
    """One connection, so that what the first one costs is not counted."""
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"x")
        time.sleep(0.2)


def measure(loop: str, style: str, load: str, cpus: frozenset[int]) -> list[str]:
    """One row of the table."""
    command = (sys.executable, str(PEER), "--loop", loop, "--style", style, "--load", load)
    with serving(f"{style}, {loop}", command, cpus) as (process, port):
        if load != "pour":
            warm_up(port)
        before = private_bytes(process.pid)
        count, most = leave_unread(process, port) if load == "pour" else push(process, port)
    grown = most - before
    if load == "pour":
        return [f"{style}, {loop}", f"{grown / MIB:,.2f}", f"{grown / count / 1024:,.0f}"]
    return [f"{style}, {loop}", f"{count / MIB:,.1f}", f"{grown / MIB:,.2f}"]


def main() -> None:
    """Print the facts and a table for each load."""
    end_on_sigterm()
    shares = share_cpus(1)
    for name, value in facts(shares, ("esockd-core", "anyio", "uvloop", "trio")).items():
        print(f"- {name}: {value}")
    for load in ("hold", "echo", "pour"):
        print(f"\n## {load}\n")
        styles = ("coroutine", "callback", "anyio")
        rows = [
            measure(loop, style, load, shares.server)
            for style, loop in itertools.product(styles, ("asyncio", "uvloop", "trio"))
        ]
        figures = ("MiB grown", "KiB a connection") if load == "pour" else ("MiB taken", "MiB grown")
        print(markdown(("handler and loop", *figures), rows), flush=True)


if __name__ == "__main__":
    main()
