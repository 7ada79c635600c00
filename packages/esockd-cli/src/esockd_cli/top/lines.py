"""The dashboard where there is no terminal: a line an interval, and a head every twenty."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from esockd_cli.top.frame import Lost, Wanted, is_datagram
from esockd_cli.top.rates import Model, total_rates
from esockd_cli.top.text import format_bytes, format_clock, format_count, format_duration, format_rate, to_cells
from esockd_cli.top.views import handshake_failures

if TYPE_CHECKING:
    from esockd_cli._output import Output
    from esockd_cli.top.frame import Frame, Only
    from esockd_cli.top.rates import Track

HEAD_EVERY: Final = 20
HEAD: Final = (
    f"{'TIME':8}{'CONNECTIONS':>13}{'ACCEPTS/S':>11}{'IN/S':>11}{'OUT/S':>11}{'QUEUE':>7}{'REJECTS/S':>11}"
    f"{'HS FAILS':>10}{'LOOP LAG':>10}"
)
DATAGRAM_HEAD: Final = f"{'DGRAMS IN/S':>13}{'DGRAMS OUT/S':>14}{'DROPS/S':>9}"


class Lines:
    """Writes what was seen: all listeners together for people, each by itself for scripts.

    Args:
        output: Where to.
        only: Which listeners are shown; None for all.
        interval_s: Seconds from one line to the next.
        count: After how many lines it is over; None for never.

    Attributes:
        interval_s: As given.
        is_over: Whether it has written all it was to, or nobody reads any more.
    """

    def __init__(
        self, output: Output, only: Only | None = None, *, interval_s: float = 1.0, count: int | None = None
    ) -> None:
        self.interval_s: float = interval_s
        self.is_over: bool = False
        self._output = output
        self._count = count
        self._model = Model(only)
        self._written = 0

    @property
    def wanted(self) -> Wanted:
        """Counters are enough."""
        return Wanted()

    def update_lists(self, frame: Frame) -> None:
        """Lists are not written."""

    def show(self, seen: Frame | Lost) -> None:
        """Write a line."""
        self._model.add(seen)
        if isinstance(seen, Lost):
            is_read = self._output.data(
                f"{format_clock(seen.at)}  does not answer: {to_cells(seen.reason)}",
                event="lost",
                at=seen.at,
                reason=seen.reason,
            )
        else:
            if self._written % HEAD_EVERY == 0 and not self._output.as_json:
                self._output.data(HEAD + DATAGRAM_HEAD if self._has_datagrams() else HEAD)
            is_read = self._output.data(
                self._line(seen.at),
                event="frame",
                at=seen.at,
                instance=seen.instance.as_dict(),
                listeners=[_describe(track) for track in self._model.summed()],
            )
        self._written += 1
        self.is_over = not is_read or self._written == self._count

    def _has_datagrams(self) -> bool:
        return any(is_datagram(track.listener) for track in self._model.summed())

    def _line(self, at: float) -> str:
        tracks = self._model.summed()
        stats = [track.listener.stats for track in tracks]
        rates = total_rates(tracks)
        accepts, bytes_in, bytes_out, rejects = (
            ("-",) * 4
            if rates is None
            else (
                format_rate(rates.accepts),
                format_bytes(rates.bytes_in),
                format_bytes(rates.bytes_out),
                format_rate(rates.refusals),
            )
        )
        of_datagrams = ""
        if self._has_datagrams():
            came, went, drops = (
                ("-",) * 3
                if rates is None
                else map(format_rate, (rates.datagrams_in, rates.datagrams_out, rates.drops))
            )
            of_datagrams = f"{came:>13}{went:>14}{drops:>9}"
        lag_s = max((each.loop_lag for each in stats), default=0.0)
        queue = sum(each.accept_queue_length or 0 for each in stats)
        return (
            f"{format_clock(at):8}{format_count(sum(each.current_connections for each in stats)):>13}{accepts:>11}"
            f"{bytes_in:>11}{bytes_out:>11}{queue:>7}{rejects:>11}"
            f"{format_count(sum(map(handshake_failures, tracks))):>10}{format_duration(lag_s, 'u'):>10}"
            f"{of_datagrams}"
        )


def _describe(track: Track) -> dict[str, object]:
    """A listener for scripts."""
    listener = track.listener
    return {
        **listener.status.as_dict(),
        "stats": listener.stats.as_dict(),
        "rates": None if track.rates is None else asdict(track.rates),
    }
