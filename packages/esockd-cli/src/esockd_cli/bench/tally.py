"""What a load process counts."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from esockd_cli.bench.histogram import Histogram

if TYPE_CHECKING:
    from collections.abc import Mapping

# Each kind of what went wrong, in words.
KINDS: Final = {
    "refused": "connecting was refused",
    "connect_timeout": "connecting, or its handshake, took longer than --timeout",
    "connect_failed": "connecting failed",
    "handshake_failed": "the handshake of TLS or DTLS failed",
    "no_descriptors": "this machine has no descriptor left",
    "no_ports": "this machine has no port left for clients",
    "reset": "the server reset a connection",
    "closed": "the server closed a connection",
    "timeout": "no whole answer came within --timeout",
    "wrong": "an answer had wrong bytes",
    "too_much": "more bytes came than were asked for",
    "unsent": "it was due, and no connection was free to send it",
    "failed": "a connection failed",
}


class Tally:
    """Counters and histograms of a process, or of all of them.

    Attributes:
        completed: Messages that came back right, or connections that were made in the other modes.
        errors: What went wrong, by its kind.
        latencies: From the moment at which a message was to be sent to its whole answer, in nanoseconds.
        connects: From the begin of a connection to the end of its handshake.
        lateness: How long after that moment a message was sent, while a connection was free for it.
        connected: Connections that are open now.
        cpu_s: Processor time of the load processes.
        elapsed_s: Seconds from the begin of the load to its last answer.
    """

    def __init__(self) -> None:
        self.completed: int = 0
        self.connected: int = 0
        self.errors: Counter[str] = Counter()
        self.latencies: Histogram = Histogram()
        self.connects: Histogram = Histogram()
        self.lateness: Histogram = Histogram()
        self.cpu_s: float = 0.0
        self.elapsed_s: float = 0.0
        self.busiest: float = 0.0

    def progress(self) -> dict[str, Any]:
        """The counters alone."""
        return {"completed": self.completed, "errors": self.errors.total(), "connected": self.connected}

    def as_dict(self) -> dict[str, Any]:
        """Everything, in what JSON can hold."""
        return {
            "completed": self.completed,
            "errors": dict(self.errors),
            "latencies": self.latencies.as_dict(),
            "connects": self.connects.as_dict(),
            "lateness": self.lateness.as_dict(),
            "connected": self.connected,
            "cpu_s": self.cpu_s,
            "elapsed_s": self.elapsed_s,
        }

    def merge(self, counted: Mapping[str, Any]) -> None:
        """Add what another process has counted, from its `as_dict`."""
        self.completed += counted["completed"]
        self.connected += counted["connected"]
        self.errors.update(counted["errors"])
        self.latencies.merge(counted["latencies"])
        self.connects.merge(counted["connects"])
        self.lateness.merge(counted["lateness"])
        self.cpu_s += counted["cpu_s"]
        self.elapsed_s = max(self.elapsed_s, counted["elapsed_s"])
        if counted["elapsed_s"]:
            self.busiest = max(self.busiest, counted["cpu_s"] / counted["elapsed_s"])
