"""Clients that connect all the time while something is replaced, and what happened to them."""

from __future__ import annotations

import argparse
import errno
import platform
import socket
import struct
import time
from collections import Counter
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

RESET = struct.pack("ii", 1, 0)  # SO_LINGER of socket(7)
AT_ONCE = 200
STEP_S = 0.005


class Clients:
    """Come and go at a rate: each connects, sends a byte, waits for it to come back and leaves with a reset.

    The reset lets no port linger.

    Attributes:
        counts: How many were served, closed, or failed, by error.
        took_s: The seconds in which they came.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._is_over = False
        self.counts: Counter[str] = Counter()
        self.took_s = 0.0

    async def come_during(self, work: Callable[[], Awaitable[None]], per_s: float) -> None:
        """Start clients until the work is done; those under way finish."""
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(self._come, per_s)
            began = time.monotonic()
            await work()
            self.took_s = time.monotonic() - began
            self._is_over = True

    async def _come(self, per_s: float) -> None:
        began, started = time.monotonic(), 0
        async with anyio.create_task_group() as clients:
            while not self._is_over:
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

    def tell(self, loop: str, served_by: str, done: str) -> None:
        """Print what was done, and what became of the clients."""
        total = sum(self.counts.values())
        print(f"Python {platform.python_version()}, {loop}, {served_by}, {platform.release()}")
        print(f"{done} in {self.took_s:.1f} s, {total / self.took_s:.0f} clients a second")
        print(f"clients: {dict(self.counts)}")


def parser(doc: str | None, workers: int) -> argparse.ArgumentParser:
    """What every benchmark of such clients takes, with a number of workers unless another is given."""
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("--loop", choices=("asyncio", "uvloop", "trio"), default="uvloop")
    parser.add_argument("--workers", type=int, default=workers)
    parser.add_argument("--rate", type=float, default=2000, help="clients a second")
    return parser
