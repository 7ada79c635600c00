"""The sources that come most often, in bounded space.

A dictionary of counts is thinned out whenever it has grown to twice its size: the least of the kept counts is
subtracted from all (Misra and Gries, "Finding repeated elements", 1982). A count is never too high, and too low by at
most the sum of all divided by `KEPT`. A source that comes more often than that is in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import nlargest
from socket import AF_INET6, inet_ntop
from typing import TYPE_CHECKING, Final

from esockd_core._plain import PlainValue
from esockd_ratelimit import source_key

if TYPE_CHECKING:
    from collections.abc import Hashable

KEPT: Final = 512


@dataclass(frozen=True, slots=True)
class TopSource(PlainValue):
    """A source and how often it comes.

    Attributes:
        source: An IPv4 address, an IPv6 /64, or "unix:" for all clients of Unix sockets.
        attempts: How often it came at least, admitted or refused.
        open_connections: How many of its connections are open now.
    """

    source: str
    attempts: int
    open_connections: int


class TopSources:
    """Counts of the sources that come most often.

    Attributes:
        uncertainty: How much too low a count may be.
    """

    __slots__ = ("_counts", "uncertainty")

    def __init__(self) -> None:
        self._counts: dict[Hashable, int] = {}
        self.uncertainty: int = 0

    def count(self, host: str) -> None:
        """Count one attempt of a host."""
        counts = self._counts
        source = host if ":" not in host else source_key(host)
        seen = counts.get(source)
        if seen is not None:
            counts[source] = seen + 1
            return
        counts[source] = 1
        if len(counts) > 2 * KEPT:
            self._thin_out()

    def _thin_out(self) -> None:
        kept = nlargest(KEPT + 1, self._counts.items(), key=lambda item: item[1])
        least = kept[-1][1]
        self._counts = {source: count - least for source, count in kept if count > least}
        self.uncertainty += least

    def top(self, most: int) -> list[tuple[Hashable, int]]:
        """The sources with the highest counts, highest first."""
        return nlargest(most, self._counts.items(), key=lambda item: item[1])


def source_text(source: Hashable) -> str:
    """A source as text. `esockd_ratelimit.source_key` gives 8 bytes for an IPv6 /64."""
    return f"{inet_ntop(AF_INET6, source + bytes(8))}/64" if isinstance(source, bytes) else str(source)
