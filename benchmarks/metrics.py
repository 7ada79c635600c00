"""What a scrape of the metrics costs, and how long it holds up the event loop.

    python benchmarks/metrics.py

A listener has very many open connections: objects with the counters that a scrape reads, because no process of an
ordinary machine has descriptors for so many. A client in the same process asks for `/metrics` over a socket, again and
again. A task that wakes every millisecond notes how much CPU time the event loop has used since it woke last: the
longest is how long a scrape holds up everything else. `at once` is the same while all connections are looked at in one
turn of the loop (`Listener.stats`), for comparison. CPU times include the client's. The sweeper stands still: it needs
more of a connection than these have. Then: what the end of a connection pays for the histogram of its duration.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from dataclasses import dataclass
from statistics import median
from types import SimpleNamespace
from typing import Any

import uvloop

from esockd_cli.metrics.endpoint import serve_metrics
from esockd_core import Listener, Server, parse_address
from esockd_core._listening.sweeper import Sweeper
from esockd_core._stats.histogram import LIFETIME_BOUNDS_S, Histogram
from harness.machine import facts, share_cpus
from harness.tables import markdown

SIZES = (100, 10_000, 100_000)
BOUNDS_MS = (1, 2, 5, 10, 20, 50, 100, 200)
TICK_S = 0.001
BETWEEN_S = 0.6  # longer than one text serves all
NOTES = 1_000_000


@dataclass(slots=True)
class Open:
    """What a scrape reads of a connection."""

    id: int
    bytes_in: int = 1
    bytes_out: int = 1


class Heartbeat:
    """Wakes every millisecond, and notes how long the loop was at work meanwhile."""

    def __init__(self) -> None:
        self.worst_s = 0.0

    async def beat(self) -> None:
        """Wake until cancelled."""
        while True:
            before = time.thread_time()
            await asyncio.sleep(TICK_S)
            self.worst_s = max(self.worst_s, time.thread_time() - before)

    def reset(self) -> float:
        """The longest such time since the last call, in seconds."""
        worst_s, self.worst_s = self.worst_s, 0.0
        return worst_s


async def scrape(port: int) -> float:
    """Ask once; the seconds of CPU time that it took."""
    before = time.thread_time()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 200")
    writer.close()
    return time.thread_time() - before


async def stand_still(*_: object) -> None:
    """In the place of the sweeper."""


async def measure(size: int, rounds: int) -> dict[str, Any]:
    """Scrape a listener with so many connections."""

    async def handle(connection: object) -> None: ...

    heartbeat = Heartbeat()
    Sweeper.sweep = stand_still  # type: ignore[assignment,method-assign]
    async with Server() as server, serve_metrics(server, parse_address("127.0.0.1:0")) as endpoint:
        listener: Listener = await server.open("edge", "127.0.0.1:0", handle)
        registry: Any = listener._site.registry  # noqa: SLF001 (objects in the place of connections)
        registry.connections.update({number: Open(number) for number in range(1, size + 1)})
        beating = asyncio.create_task(heartbeat.beat())
        took, held_up, idle, at_once = [], [], [], []
        port = 0 if endpoint is None else endpoint.port or 0
        for _ in range(rounds):
            heartbeat.reset()
            await asyncio.sleep(BETWEEN_S)
            idle.append(heartbeat.reset())
            took.append(await scrape(port))
            held_up.append(heartbeat.reset())
            await asyncio.sleep(5 * TICK_S)
            heartbeat.reset()
            listener.stats()
            await asyncio.sleep(5 * TICK_S)
            at_once.append(heartbeat.reset())
        beating.cancel()
        registry.connections.clear()
    return {"size": size, "took": took, "held_up": held_up, "idle": idle, "at_once": at_once}


def histogram(seconds: list[float]) -> str:
    """How many were up to each bound, in words."""
    counts = [0] * (len(BOUNDS_MS) + 1)
    for each in seconds:
        counts[next((i for i, bound in enumerate(BOUNDS_MS) if each * 1000 <= bound), len(BOUNDS_MS))] += 1
    words = [f"≤ {bound} ms: {count}" for bound, count in zip(BOUNDS_MS, counts, strict=False) if count]
    return ", ".join(words + ([f"more: {counts[-1]}"] if counts[-1] else []))


def cost_of_a_note_ns() -> float:
    """What the end of a connection pays for the histogram of its duration."""
    lifetimes, ended = Histogram(LIFETIME_BOUNDS_S), SimpleNamespace(opened_at=time.time())
    before = time.thread_time_ns()
    for _ in range(NOTES):
        lifetimes.note(max(0.0, time.time() - ended.opened_at))
    return (time.thread_time_ns() - before) / NOTES


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What a scrape of the metrics costs.")
    parser.add_argument("--rounds", type=int, default=40, help="scrapes for each number of connections")
    rounds = parser.parse_args().rounds
    packages = ("esockd-cli", "esockd-core", "prometheus-client", "anyio", "uvloop")
    for name, value in facts(share_cpus(1), packages).items():
        print(f"- {name}: {value}")
    rows = []
    spread = []
    for size in SIZES:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            found = runner.run(measure(size, rounds))
        columns = [found["took"], found["held_up"], found["at_once"], found["idle"]]
        figures = [f"{1000 * f(each):.1f}" for each in columns for f in (median, max)]
        rows.append([f"{size:,}", *figures])
        spread.append(f"- {size:,}: {histogram(found['took'])}")
    head = ["connections", "scrape ms", "max", "held up ms", "max", "at once ms", "max", "idle ms", "max"]
    print("\n" + markdown(head, rows) + "\n\nScrapes by duration:\n\n" + "\n".join(spread))
    print(f"\nNoting the duration of a connection takes {cost_of_a_note_ns():.0f} ns.")


if __name__ == "__main__":
    main()
