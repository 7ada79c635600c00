"""Clients that connect all the time while workers are replaced one after the other: how many are refused or reset.

    python benchmarks/workers.py --loop uvloop --restarts 10 --rate 2000

Each client connects, sends a byte, waits for it to come back and leaves with a reset, so that no port lingers.
"""

from __future__ import annotations

import argparse
import errno
import platform
import socket
import struct
import time
from collections import Counter

import anyio

from esockd_core import ListenerOptions, TcpOptions
from esockd_core.workers import WorkerListener, Workers

RESET = struct.pack("ii", 1, 0)  # SO_LINGER of socket(7)
AT_ONCE = 200
STEP_S = 0.005


class Clients:
    """Comes and goes at a rate, and counts what happened."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.is_over = False
        self.counts: Counter[str] = Counter()

    async def come(self, per_s: float) -> None:
        """Start clients until it is over; those under way finish."""
        began, started = time.monotonic(), 0
        async with anyio.create_task_group() as clients:
            while not self.is_over:
                due = int((time.monotonic() - began) * per_s)
                for _ in range(min(due - started, AT_ONCE)):
                    clients.start_soon(self._one)
                    started += 1
                await anyio.sleep(STEP_S)

    async def _one(self) -> None:
        with socket.socket() as client:
            client.setblocking(False)
            try:
                if client.connect_ex(("127.0.0.1", self._port)):
                    await anyio.wait_writable(client)
                if error := client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    self.counts[errno.errorcode[error]] += 1
                    return
                client.send(b"x")
                await anyio.wait_readable(client)
                self.counts["served" if client.recv(1) == b"x" else "closed"] += 1
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            except OSError as error:
                self.counts[type(error).__name__] += 1


async def run(arguments: argparse.Namespace) -> None:
    """Replace the workers under load, and tell."""
    listener = WorkerListener(
        name="echo",
        address="127.0.0.1:0",
        handler="esockd_core.handlers:echo",
        options=ListenerOptions(max_connections=None, tcp=TcpOptions(backlog=4096)),
    )
    async with Workers([listener], count=arguments.workers, loop=arguments.loop) as workers:
        (control,) = workers.listeners()
        clients = Clients((await control.get_status()).port or 0)
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(clients.come, arguments.rate)
            began = time.monotonic()
            for _ in range(arguments.restarts):
                await workers.restart()
            took_s = time.monotonic() - began
            clients.is_over = True
        stats = await control.get_stats()
    total = sum(clients.counts.values())
    replaced = arguments.restarts * arguments.workers
    print(f"Python {platform.python_version()}, {arguments.loop}, {arguments.workers} workers, {platform.release()}")
    print(f"{replaced} workers replaced in {took_s:.1f} s, {total / took_s:.0f} clients a second")
    print(f"clients: {dict(clients.counts)}; the listener: {stats.accepted} accepted, {stats.refused} refused")


def main() -> None:
    """Read the command line, and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--loop", choices=("asyncio", "uvloop", "trio"), default="uvloop")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--restarts", type=int, default=10, help="times that all workers are replaced")
    parser.add_argument("--rate", type=float, default=2000, help="clients a second")
    anyio.run(run, parser.parse_args())


if __name__ == "__main__":
    main()
