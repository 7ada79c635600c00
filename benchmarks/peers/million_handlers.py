"""The handlers of `million.py`, as `esockd open` imports them, and a record of the pauses of the garbage collector.

With MILLION_PAUSES set to a folder, each process writes every pause to a file of its own there, which anybody may read
while it runs: the number of pauses; then for each its generation, its seconds, and the CPU time in it.
"""

from __future__ import annotations

import gc
import mmap
import os
import struct
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from esockd_core import CallbackHandler

if TYPE_CHECKING:
    from collections.abc import Mapping

    from esockd_core import StreamConnection

MOST: Final = 1 << 18
COUNT: Final = struct.Struct("=Q")
PAUSE: Final = struct.Struct("=Bdd")


class Pauses:
    """Writes down every pause."""

    def __init__(self, folder: str) -> None:
        path = Path(folder) / str(os.getpid())
        with path.open("w+b") as file:
            file.truncate(COUNT.size + MOST * PAUSE.size)
            self._bytes = mmap.mmap(file.fileno(), 0)
        self._count = 0
        self._begun = self._used = 0.0

    def begin(self, phase: str, info: Mapping[str, int]) -> None:
        """As the first of `gc.callbacks`."""
        del info
        if phase == "start":
            self._used = time.thread_time()
            self._begun = time.perf_counter()

    def end(self, phase: str, info: Mapping[str, int]) -> None:
        """As the last of them: what other callbacks do belongs to the pause."""
        if phase == "stop" and self._count < MOST:
            pause_s, used_s = time.perf_counter() - self._begun, time.thread_time() - self._used
            PAUSE.pack_into(self._bytes, COUNT.size + self._count * PAUSE.size, info["generation"], pause_s, used_s)
            self._count += 1
            COUNT.pack_into(self._bytes, 0, self._count)


def read_pauses(folder: Path) -> list[tuple[int, float, float]]:
    """The pauses of all processes so far: generation, seconds, and seconds of CPU time."""
    found: list[tuple[int, float, float]] = []
    for path in folder.iterdir():
        data = path.read_bytes()
        (count,) = COUNT.unpack_from(data)
        found += PAUSE.iter_unpack(data[COUNT.size : COUNT.size + count * PAUSE.size])
    return found


@cache
def record() -> None:
    """Begin with the first connection, when the command has set its own callbacks."""
    if folder := os.environ.get("MILLION_PAUSES"):
        pauses = Pauses(folder)
        gc.callbacks.insert(0, pauses.begin)
        gc.callbacks.append(pauses.end)


async def echo(connection: StreamConnection) -> None:
    """Send back what comes."""
    record()
    async for data in connection:
        await connection.send(data)


class Echo(CallbackHandler):
    """The same without a task for each connection."""

    def connection_made(self, connection: StreamConnection) -> None:
        """Begin to record."""
        del connection
        record()

    def data_received(self, connection: StreamConnection, data: bytes) -> None:
        """Write it back."""
        connection.send_nowait(data)
