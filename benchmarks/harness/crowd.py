"""Several load clients that act together, because no process may open as many files as one crowd needs."""

from __future__ import annotations

import json
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from harness.errors import BenchmarkError
from harness.load import compiled
from harness.processes import Process, running

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SPARE_FILES: Final = 100
# connect(2) looks through half of the ports of a source address, 14,000 by default; once these are taken, at length.
CONNECTIONS_PER_SOURCE: Final = 5_000


def shares(total: int, most: int) -> list[int]:
    """Split a number into parts as equal as possible, none above `most`."""
    parts = -(-total // most)
    return [total // parts + (number < total % parts) for number in range(parts)]


@dataclass(frozen=True)
class CrowdReport:
    """What all clients counted.

    Attributes:
        operations: Messages that came back.
        errors: Connections that failed.
        lost: Messages that did not come back.
        corrupt: Messages that came back changed.
        first_error: The first error of one client; None if there is none.
        latencies_us: Upper end of a step and how many ended in it, in order.
    """

    operations: int
    errors: int
    lost: int
    corrupt: int
    first_error: str | None
    latencies_us: tuple[tuple[float, int], ...]

    def percentile_us(self, share: float) -> float:
        """The latency that this share of the operations does not exceed."""
        if not self.latencies_us:
            return 0.0
        wanted = share * sum(count for _, count in self.latencies_us)
        for (end_us, _), seen in zip(
            self.latencies_us, accumulate(count for _, count in self.latencies_us), strict=True
        ):
            if seen >= wanted:
                return end_us
        return self.latencies_us[-1][0]


class Crowd:
    """Load clients that hold connections to one port, stop together and go on together."""

    def __init__(self, clients: Sequence[Process], timeout_s: float) -> None:
        self._clients = clients
        self._timeout_s = timeout_s

    @property
    def pids(self) -> list[int]:
        """Their processes."""
        return [client.pid for client in self._clients]

    def wait_until(self, point: str) -> None:
        """Wait until all stand at `point`.

        Raises:
            BenchmarkError: If one ended, or did not get there in time.
        """
        for client in self._clients:
            if (line := client.read_line(self._timeout_s)) != point:
                raise BenchmarkError(f"a load client said {line!r} instead of {point!r}{client.last_words()}")

    def go_on(self) -> None:
        """Let all leave the point they stand at."""
        for client in self._clients:
            client.write_line()

    def report(self) -> CrowdReport:
        """Let all leave `measured`, and add up what they counted."""
        self.go_on()
        reports: list[dict[str, Any]] = [json.loads(client.read_line(self._timeout_s)) for client in self._clients]
        latencies: dict[float, int] = {}
        for report in reports:
            for end_us, count in report["histogram_us"]:
                latencies[end_us] = latencies.get(end_us, 0) + count
        return CrowdReport(
            operations=sum(report["ops"] for report in reports),
            errors=sum(report["errors"] for report in reports),
            lost=sum(report["lost"] for report in reports),
            corrupt=sum(report["corrupt"] for report in reports),
            first_error=next((report["first_error"] for report in reports if report["first_error"]), None),
            latencies_us=tuple(sorted(latencies.items())),
        )


@contextmanager
def crowd(
    port: int, connections: int, rate: int, seconds: float, files: int, cpus: frozenset[int], timeout_s: float
) -> Iterator[Crowd]:
    """Hold connections to 127.0.0.1; then send messages over them, one after the other, at a rate.

    Args:
        port: The server's.
        connections: How many in all.
        rate: Messages a second in all.
        seconds: How long to send.
        files: Descriptors that a process may open.
        cpus: Where the clients may run.
        timeout_s: Seconds without any progress after which what is missing is lost.
    """
    parts = shares(connections, files - SPARE_FILES)
    sources = max(64, connections // CONNECTIONS_PER_SOURCE)
    with ExitStack() as stack:
        clients = []
        for part in parts:
            words = ["--port", str(port), "--connections", str(part), "--rate", str(max(1, rate // len(parts)))]
            words += ["--seconds", str(seconds), "--warmup", "0", "--timeout", str(timeout_s), "--step", "--histogram"]
            words += ["--sources", str(sources)]
            command = [compiled("load"), "echo", *words]
            clients.append(stack.enter_context(running(f"load of {part} connections", command, cpus)))
        yield Crowd(clients, timeout_s + seconds + 60)
