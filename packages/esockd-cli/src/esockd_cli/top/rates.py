"""What the frames of an instance say together: rates, trends and the latencies of the last minute."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

from esockd_cli.top.frame import Lost, key_of
from esockd_core import Durations, Refused, Stats

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from esockd_cli.top.frame import Frame, ListenerFrame, ListenerKey, Only
    from esockd_core import InstanceStatus

TREND_LENGTH: Final = 240  # intervals: more than a wide terminal has columns for
WINDOW_S: Final = 60.0
NEARLY: Final = 0.9  # clocks and intervals are not exact

Measure: TypeAlias = Literal["accepts", "refusals", "bytes_in", "bytes_out"]
MEASURES: Final[tuple[Measure, ...]] = get_args(Measure)
DurationsName: TypeAlias = Literal["accept_delays", "handshakes", "loop_lags"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What one listener did a second, over the last interval.

    Attributes:
        accepts: Sockets admitted.
        refusals: Sockets refused, without those whose peer had left by then.
        bytes_in: Bytes received.
        bytes_out: Bytes handed over for sending.
        accept_errors: Failed calls of accept(2).
        handshakes: TLS handshakes that succeeded.
        datagrams_in: Datagrams that came, with those that were dropped.
        datagrams_out: Datagrams sent.
        drops: Datagrams that reached no handler.
        refused: Sockets that did not become connections, by counter.
        ended: Connections that ended, by reason.
        dropped: Datagrams that reached no handler, by cause.
        unsent: Datagrams that were not sent, by error.
    """

    accepts: float = 0.0
    refusals: float = 0.0
    bytes_in: float = 0.0
    bytes_out: float = 0.0
    accept_errors: float = 0.0
    handshakes: float = 0.0
    datagrams_in: float = 0.0
    datagrams_out: float = 0.0
    drops: float = 0.0
    refused: dict[str, float] = field(default_factory=dict)
    ended: dict[str, float] = field(default_factory=dict)
    dropped: dict[str, float] = field(default_factory=dict)
    unsent: dict[str, float] = field(default_factory=dict)


COUNTERS: Final[dict[str, Callable[[Stats], int]]] = {
    "accepts": attrgetter("accepted"),
    "refusals": attrgetter("refused"),
    "bytes_in": attrgetter("bytes_in"),
    "bytes_out": attrgetter("bytes_out"),
    "accept_errors": attrgetter("closed_sys_limit"),
    "handshakes": attrgetter("handshakes.count"),
    "datagrams_in": attrgetter("datagrams_in"),
    "datagrams_out": attrgetter("datagrams_out"),
    "drops": lambda stats: sum(stats.datagrams_dropped.values()),
}
"""The counter behind each rate that is one number."""


def rates_between(old: Stats, new: Stats, seconds: float) -> Rates | None:
    """The rates between two snapshots of one listener.

    Returns:
        None where they say nothing: no time has passed, or a counter went back, and so began anew in between.
    """
    if seconds <= 0:
        return None
    refused = {str(stage): getattr(new, stage) - getattr(old, stage) for stage in Refused}
    changes = {
        "refused": refused,
        "ended": _changes(old.shutdown_counts, new.shutdown_counts),
        "dropped": _changes(old.datagrams_dropped, new.datagrams_dropped),
        "unsent": _changes(old.datagrams_unsent, new.datagrams_unsent),
    }
    plain = {name: counter(new) - counter(old) for name, counter in COUNTERS.items()}
    if min(*plain.values(), *(change for each in changes.values() for change in each.values())) < 0:
        return None
    by_name = {name: {key: change / seconds for key, change in each.items()} for name, each in changes.items()}
    return Rates(**{name: change / seconds for name, change in plain.items()}, **by_name)  # type: ignore[arg-type]


def _changes(old: dict[str, int], new: dict[str, int]) -> dict[str, int]:
    return {str(name): count - old.get(name, 0) for name, count in new.items()}


def durations_since(old: Durations, new: Durations) -> Durations:
    """Those durations of `new` that are not in `old`; all of them where it is no later state of the same histogram."""
    if old.bounds != new.bounds or len(old.counts) != len(new.counts):
        return new
    counts = tuple(after - before for before, after in zip(old.counts, new.counts, strict=True))
    return new if min(counts, default=0) < 0 else Durations(counts, new.total - old.total, new.bounds)


class Track:
    """One listener over time.

    Attributes:
        key: Which.
        listener: Its newest frame.
        rates: Over the last interval; None where they are not known.
        trends: The last rates, oldest first, with None where they were not known.
    """

    __slots__ = ("_window", "key", "listener", "rates", "trends")

    def __init__(self, key: ListenerKey, listener: ListenerFrame, gap: int) -> None:
        self.key: ListenerKey = key
        self.listener: ListenerFrame = listener
        self.rates: Rates | None = None
        self.trends: dict[Measure, deque[float | None]] = {
            measure: deque[float | None]([None] * gap, TREND_LENGTH) for measure in MEASURES
        }
        self._window: deque[tuple[float, Stats]] = deque()

    def add(self, listener: ListenerFrame, uptime_s: float, *, is_continued: bool) -> None:
        """Take the next frame, of the same process or of one that came after it."""
        self.rates = None
        if is_continued and self._window:
            before_s, before = self._window[-1]
            self.rates = rates_between(before, listener.stats, uptime_s - before_s)
        if self.rates is None:
            self._window.clear()
        self._window.append((uptime_s, listener.stats))
        while uptime_s - self._window[0][0] > WINDOW_S:
            self._window.popleft()
        self.listener = listener
        for measure, trend in self.trends.items():
            trend.append(None if self.rates is None else getattr(self.rates, measure))

    def skip(self) -> None:
        """Note that there was nothing to see in an interval."""
        self.rates = None
        for trend in self.trends.values():
            trend.append(None)

    def quantile(self, name: DurationsName, part: float) -> float | None:
        """What this part of the durations of the last minute did not exceed, in seconds; None when there were none."""
        return self.durations(name).quantile(part)

    def durations(self, name: DurationsName) -> Durations:
        """The durations of the last minute."""
        newest: Durations = getattr(self.listener.stats, name)
        return durations_since(getattr(self._window[0][1], name), newest) if self._window else newest


class Model:
    """One instance over time.

    Args:
        only: Which of its listeners count; None for all.

    Attributes:
        frame: The newest frame; None before the first.
        lost: Why the instance does not answer; None while it does.
        cpu: The part of a processor that it used over the last interval; None where that is not known.
        tracks: Its listeners, in the order of the newest frame.
    """

    def __init__(self, only: Only | None = None) -> None:
        self._only = only
        self.frame: Frame | None = None
        self.lost: Lost | None = None
        self.cpu: float | None = None
        self._noted_at = 0.0  # when the trends got their newest value
        self._step_s = 0.0  # how long after the one before
        self.tracks: dict[ListenerKey, Track] = {}

    def add(self, seen: Frame | Lost) -> None:
        """Take what was seen next."""
        if isinstance(seen, Lost):
            self.lost = seen
            if seen.at - self._noted_at >= self._step_s * NEARLY:
                self._noted_at = seen.at
                for track in self.tracks.values():
                    track.skip()
            return
        self._step_s = seen.at - self._noted_at if self.frame is not None else 0.0
        self._noted_at = seen.at
        if self._only is not None:
            seen = replace(seen, listeners=tuple(each for each in seen.listeners if self._only(each.status)))
        before, self.frame, self.lost = self.frame, seen, None
        is_continued = (
            before is not None
            and before.instance.pid == seen.instance.pid
            and before.instance.uptime <= seen.instance.uptime
        )
        self.cpu = None if before is None or not is_continued else _cpu_between(before.instance, seen.instance)
        # A listener that is new has as long a past as the others, with nothing in it.
        past = max((len(track.trends["accepts"]) for track in self.tracks.values()), default=0)
        known, self.tracks = self.tracks, {}
        for listener in seen.listeners:
            key = key_of(listener)
            track = self.tracks[key] = known.get(key) or Track(key, listener, past)
            track.add(listener, seen.instance.uptime, is_continued=is_continued)

    def update_lists(self, frame: Frame) -> None:
        """Take the lists of a frame that came between two intervals: counters, rates and trends stay."""
        for each in frame.listeners:
            if (track := self.tracks.get(key_of(each))) is not None:
                track.listener = replace(
                    track.listener, sources=each.sources, refusals=each.refusals, connections=each.connections
                )

    def summed(self, *, by_worker: bool = False) -> list[Track]:
        """The listeners, as sums over all workers or for each worker."""
        return [track for key, track in self.tracks.items() if (key.worker is not None) == by_worker]

    @property
    def has_workers(self) -> bool:
        """Whether the instance tells its workers apart."""
        return any(key.worker is not None for key in self.tracks)


def _cpu_between(old: InstanceStatus, new: InstanceStatus) -> float | None:
    seconds = new.uptime - old.uptime
    return (new.cpu_time - old.cpu_time) / seconds if seconds > 0 else None


def total_rates(tracks: Iterable[Track]) -> Rates | None:
    """The rates of several listeners together; None where none of them are known."""
    known = [track.rates for track in tracks if track.rates is not None]
    if not known:
        return None
    sums: dict[str, Any] = {name: sum(getattr(rates, name) for rates in known) for name in COUNTERS}
    return Rates(**sums)


def total_trend(tracks: Iterable[Track], measure: Measure) -> list[float | None]:
    """The trend of several listeners together."""
    trends = [list(track.trends[measure]) for track in tracks]
    length = max(map(len, trends), default=0)
    missing: list[float | None] = [None]
    padded = [missing * (length - len(trend)) + trend for trend in trends]
    return [_sum_known(moment) for moment in zip(*padded, strict=True)]


def _sum_known(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
