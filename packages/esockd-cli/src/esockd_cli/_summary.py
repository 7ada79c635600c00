"""What a listener did, in one line for people and as fields for scripts."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Final

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
        left_early: Sockets whose peer was gone when they were accepted, as port checks are.
        accept_errors: Failed calls of accept(2) for want of descriptors or memory.
        open_connections: Connections that had not ended.
        bytes_in: Bytes received.
        bytes_out: Bytes handed over for sending.
        ended: Ended connections by reason.
        datagrams_in: Datagrams that came, with those that were dropped.
        datagrams_out: Datagrams sent.
        datagrams_dropped: Dropped datagrams by cause.
    """

    listener: str
    address: str
    accepted: int
    refused: dict[str, int]
    left_early: int
    accept_errors: int
    open_connections: int
    bytes_in: int
    bytes_out: int
    ended: dict[str, int]
    datagrams_in: int = 0
    datagrams_out: int = 0
    datagrams_dropped: dict[str, int] = field(default_factory=dict)

    def fields(self) -> dict[str, object]:
        """Everything, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """One line for people."""
        parts = [
            f"{self.accepted} accepted",
            f"{sum(self.refused.values())} refused{by_name(self.refused)}",
            f"{format_bytes(self.bytes_in)} in",
            f"{format_bytes(self.bytes_out)} out",
            f"{sum(self.ended.values())} ended{by_name(self.ended)}",
        ]
        if self.datagrams_in or self.datagrams_out:
            dropped = f"{sum(self.datagrams_dropped.values())} dropped{by_name(self.datagrams_dropped)}"
            parts.append(f"{self.datagrams_in} datagrams in, {self.datagrams_out} out, {dropped}")
        if self.left_early:
            parts.append(f"{self.left_early} left early")
        if self.open_connections:
            parts.append(f"{self.open_connections} not ended")
        if self.accept_errors:
            parts.append(f"{self.accept_errors} failed accepts (descriptors or memory)")
        return f"{self.listener} {self.address}: {', '.join(parts)}"


def summarize(listener: str, address: str, stats: Stats) -> Summary:
    """Make the summary of a listener from its counters."""
    from esockd_core import Refused  # noqa: PLC0415 - formats are of use without it

    return Summary(
        listener=listener,
        address=address,
        accepted=stats.accepted,
        refused={
            str(stage): count for stage in Refused if stage is not Refused.EARLY and (count := getattr(stats, stage))
        },
        left_early=stats.closed_early,
        accept_errors=stats.closed_sys_limit,
        open_connections=stats.current_connections,
        bytes_in=stats.bytes_in,
        bytes_out=stats.bytes_out,
        ended=_most_first(stats.shutdown_counts),
        datagrams_in=stats.datagrams_in,
        datagrams_out=stats.datagrams_out,
        datagrams_dropped=_most_first(stats.datagrams_dropped),
    )


def _most_first(counts: dict[str, int]) -> dict[str, int]:
    return {str(name): count for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))}


def format_bytes(count: int) -> str:
    """Bytes in the largest unit that leaves a whole number or one decimal: 999 B, 1.5 KiB, 20 MiB."""
    size = float(count)
    for unit in UNITS:
        if size < 1024 or unit == UNITS[-1]:
            return f"{size:.0f} {unit}" if size >= 10 or size == int(size) else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError


def by_name(counts: dict[str, int]) -> str:
    """Counts in brackets, such as " (normal 3, shutdown 1)"; nothing where there are none."""
    return f" ({', '.join(f'{name} {count}' for name, count in counts.items())})" if counts else ""
