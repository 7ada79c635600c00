"""The columns that tables of listeners are made of."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from esockd_cli.top.canvas import Style
from esockd_cli.top.frame import is_datagram
from esockd_cli.top.glyphs import bar, sparkline
from esockd_cli.top.table import Column
from esockd_cli.top.text import clip, clip_middle, format_bytes, format_count, format_rate, format_short, to_cells

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from esockd_cli.top.canvas import Spans
    from esockd_cli.top.glyphs import Glyphs
    from esockd_cli.top.rates import Measure, Rates, Track

NEARLY_FULL: Final = 0.9
SPARKLINE_RANK: Final = 9  # sparklines go first, then bytes
BYTES_RANK: Final = 8
STATES: Final = {"running": Style.GOOD, "suspended": Style.WARN, "draining": Style.WARN, "closed": Style.BAD}
TREND_STYLES: Final[dict[Measure, Style]] = {
    "accepts": Style.GOOD,
    "refusals": Style.BAD,
    "bytes_in": Style.IN,
    "bytes_out": Style.OUT,
}


def name_column(tracks: Sequence[Track], glyphs: Glyphs) -> Column[Track]:
    """Its name, and the worker it is of."""
    longest = max((len(to_cells(name_of(track))) for track in tracks), default=0)
    return Column(
        title="LISTENER",
        cell=lambda track, width: [(clip(to_cells(name_of(track)), width, glyphs.ellipsis), Style.BOLD)],
        width=min(max(longest, 8), 14),
        least=8,
        most=min(max(longest, 8), 28),
        turn=1,
        align="left",
        key=lambda track: (track.listener.status.name.casefold(), track.listener.status.address),
    )


def name_of(track: Track) -> str:
    """The listener's name, with the worker's number where it is of one."""
    worker = track.listener.worker
    return track.listener.status.name if worker is None else f"{track.listener.status.name}/{worker}"


def address_column(tracks: Sequence[Track], glyphs: Glyphs) -> Column[Track]:
    """What it was opened by."""
    longest = max((len(to_cells(track.listener.status.address)) for track in tracks), default=0)
    return Column(
        title="ADDRESS",
        cell=lambda track, width: [
            (clip_middle(to_cells(track.listener.status.address), width, glyphs.ellipsis), Style.PLAIN)
        ],
        width=min(max(longest, 7), 14),
        most=min(max(longest, 7), 44),
        turn=3,
        rank=4,
        align="left",
        key=lambda track: track.listener.status.address,
    )


def state_column() -> Column[Track]:
    """Where it is in its life."""
    return Column(
        title="STATE",
        cell=lambda track, width: [(track.listener.status.state[:width], state_style(track))],
        width=9,
        rank=3,
        align="left",
        key=lambda track: track.listener.status.state,
    )


def state_style(track: Track) -> Style:
    """How the state's word is written."""
    return STATES.get(track.listener.status.state, Style.PLAIN)


def connections_columns(tracks: Sequence[Track], glyphs: Glyphs) -> list[Column[Track]]:
    """Open connections of those there is room for, and that as a bar."""
    longest = max((len(_connections(track, 99)) for track in tracks), default=0)
    return [
        Column(
            title="CONNECTIONS",
            short="OPEN/MAX",
            cell=lambda track, width: [(_connections(track, width), _fullness(track)[1])],
            width=min(max(11, longest), 15),
            least=9,
            most=max(11, longest),
            turn=2,
            key=lambda track: track.listener.stats.current_connections,
        ),
        Column(title="", cell=lambda track, width: _bar(track, width, glyphs), width=10, most=36, rank=7, align="left"),
    ]


def _connections(track: Track, width: int) -> str:
    stats = track.listener.stats
    if stats.max_connections is None:
        return format_count(stats.current_connections)
    text = f"{format_count(stats.current_connections)}/{format_count(stats.max_connections)}"
    if len(text) <= width:
        return text
    return f"{format_short(stats.current_connections)}/{format_short(stats.max_connections)}"


def _fullness(track: Track) -> tuple[float, Style]:
    """How full a listener is, 0 to 1, and how that is written."""
    current, most = track.listener.stats.current_connections, track.listener.stats.max_connections
    part = 0.0 if most is None else current / most if most else 1.0
    return part, Style.BAD if part >= 1 else Style.WARN if part >= NEARLY_FULL else Style.PLAIN


def _bar(track: Track, width: int, glyphs: Glyphs) -> Spans:
    if track.listener.stats.max_connections is None:
        return [("no limit", Style.DIM)]
    part, style = _fullness(track)
    full, rest = bar(min(part, 1.0), width - 5, glyphs)
    percent = "full" if part >= 1 else f"{int(part * 100)}%"
    return [(full, Style.GOOD if style == Style.PLAIN else style), (rest, Style.DIM), (f"{percent:>5}", style)]


def rate_column(
    title: str,
    value: Callable[[Rates], float],
    glyphs: Glyphs,
    *,
    style: Style = Style.PLAIN,
    rank: int = 0,
    width: int | None = None,
) -> Column[Track]:
    """Something a second.

    Args:
        title: What.
        value: Picks it from all rates.
        glyphs: The characters to use.
        style: How it is written when it is not 0.
        rank: When it is left out.
        width: Its width; the title's when not given.
    """

    def cell(track: Track, _: int) -> Spans:
        if track.rates is None:
            return [(glyphs.unknown, Style.DIM)]
        rate = value(track.rates)
        return [(format_rate(rate), style if rate else Style.DIM)]

    return Column(
        title=title,
        cell=cell,
        width=width or len(title),
        rank=rank,
        key=lambda track: -1.0 if track.rates is None else value(track.rates),
    )


def accepts_column(glyphs: Glyphs) -> Column[Track]:
    """Admissions a second; a listener that does not accept says so here, where every width has room."""
    rates = rate_column("ACCEPTS/S", lambda rates: rates.accepts, glyphs)

    def cell(track: Track, width: int) -> Spans:
        return rates.cell(track, width) if track.listener.status.state == "running" else [("none", state_style(track))]

    return Column(title=rates.title, cell=cell, width=rates.width, key=rates.key)


def bytes_column(title: str, measure: Measure, glyphs: Glyphs, *, rank: int = BYTES_RANK) -> Column[Track]:
    """Bytes a second."""

    def cell(track: Track, _: int) -> Spans:
        if track.rates is None:
            return [(glyphs.unknown, Style.DIM)]
        rate = getattr(track.rates, measure)
        return [(format_bytes(rate), Style.PLAIN if rate else Style.DIM)]

    return Column(
        title=title,
        cell=cell,
        width=9,
        rank=rank,
        key=lambda track: -1.0 if track.rates is None else getattr(track.rates, measure),
    )


def trend_column(measure: Measure, glyphs: Glyphs, *, least: int = 7, most: int = 24) -> Column[Track]:
    """The last rates as a sparkline, to the right of the newest of them."""
    return Column(
        title="",
        cell=lambda track, width: [(sparkline(track.trends[measure], width, glyphs), TREND_STYLES[measure])],
        width=least,
        most=most,
        rank=SPARKLINE_RANK,
        align="left",
    )


def datagram_columns(
    tracks: Sequence[Track], glyphs: Glyphs, *measures: tuple[str, Callable[[Rates], float], int, Style]
) -> list[Column[Track]]:
    """Rates that only listeners of datagrams have; no columns where no listener is one.

    Args:
        tracks: The rows.
        glyphs: The characters to use.
        measures: The title, the rate, the rank and the style of each.
    """

    def column(title: str, value: Callable[[Rates], float], rank: int, style: Style) -> Column[Track]:
        rates = rate_column(title, value, glyphs, style=style, rank=rank)

        def cell(track: Track, width: int) -> Spans:
            return rates.cell(track, width) if is_datagram(track.listener) else [("n/a", Style.DIM)]

        def key(track: Track) -> float:
            return -1.0 if track.rates is None or not is_datagram(track.listener) else value(track.rates)

        return replace(rates, cell=cell, key=key)

    return [column(*each) for each in measures] if any(is_datagram(each.listener) for each in tracks) else []


def queue_column() -> Column[Track]:
    """Clients that wait in the kernel, of those that may."""

    def cell(track: Track, width: int) -> Spans:
        waiting, most = track.listener.stats.accept_queue_length, track.listener.stats.accept_queue_limit
        if waiting is None:
            return [("n/a", Style.DIM)]
        number = format_count(waiting)
        full = number if most is None else f"{number}/{format_count(most)}"
        style = Style.DIM if not waiting else Style.WARN if most and waiting >= most / 2 else Style.PLAIN
        return [(full if len(full) <= width else number, style)]

    return Column(
        title="QUEUE", cell=cell, width=5, most=9, turn=2, rank=5,
        key=lambda track: track.listener.stats.accept_queue_length or 0,
    )  # fmt: skip


def count_column(
    title: str, value: Callable[[Track], int], *, style: Style = Style.PLAIN, rank: int = 0, width: int | None = None
) -> Column[Track]:
    """A counter."""
    return Column(
        title=title,
        cell=lambda track, _: [(format_count(value(track)), style if value(track) else Style.DIM)],
        width=max(width or 0, len(title), 7),
        rank=rank,
        key=value,
    )
