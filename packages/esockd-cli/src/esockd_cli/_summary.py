"""What a listener did, in one line for people and as fields for scripts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from esockd_core import Refused

if TYPE_CHECKING:
    from esockd_core import Stats

UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The life of one listener.

    Attributes:
        listener: Its name.
        address: The address it was opened by.
        accepted: Connections admitted.
        refused: Sockets refused, by counter; only those above 0.
        accept_errors: Failed calls of accept(2) for want of descriptors or memory.
        open_connections: Connections that had not ended.
        bytes_in: Bytes received.
        bytes_out: Bytes handed over for sending.
        ended: Ended connections by reason.
    """

    listener: str
    address: str
    accepted: int
    refused: dict[str, int]
    accept_errors: int
    open_connections: int
    bytes_in: int
    bytes_out: int
    ended: dict[str, int]

    def fields(self) -> dict[str, object]:
        """Everything, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """One line for people."""
        parts = [
            f"{self.accepted} accepted",
            f"{sum(self.refused.values())} refused{_by(self.refused)}",
            f"{format_bytes(self.bytes_in)} in",
            f"{format_bytes(self.bytes_out)} out",
            f"{sum(self.ended.values())} ended{_by(self.ended)}",
        ]
        if self.open_connections:
            parts.append(f"{self.open_connections} not ended")
        if self.accept_errors:
            parts.append(f"{self.accept_errors} failed accepts (descriptors or memory)")
        return f"{self.listener} {self.address}: {', '.join(parts)}"


def summarize(listener: str, address: str, stats: Stats) -> Summary:
    """Make the summary of a listener from its counters."""
    return Summary(
        listener=listener,
        address=address,
        accepted=stats.accepted,
        refused={str(stage): count for stage in Refused if (count := getattr(stats, stage))},
        accept_errors=stats.closed_sys_limit,
        open_connections=stats.current_connections,
        bytes_in=stats.bytes_in,
        bytes_out=stats.bytes_out,
        ended=dict(sorted(stats.shutdown_counts.items(), key=lambda item: (-item[1], item[0]))),
    )


def format_bytes(count: int) -> str:
    """Bytes in the largest unit that leaves a whole number or one decimal: 999 B, 1.5 KiB, 20 MiB."""
    size = float(count)
    for unit in UNITS:
        if size < 1024 or unit == UNITS[-1]:
            return f"{size:.0f} {unit}" if size >= 10 or size == int(size) else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError


def _by(counts: dict[str, int]) -> str:
    return f" ({', '.join(f'{name} {count}' for name, count in counts.items())})" if counts else ""
