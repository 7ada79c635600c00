"""The numbered views of listeners: which columns each has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from esockd_cli.top.canvas import Style
from esockd_cli.top.columns import (
    accepts_column,
    address_column,
    bytes_column,
    connections_columns,
    count_column,
    datagram_columns,
    name_column,
    queue_column,
    rate_column,
    state_column,
    trend_column,
)
from esockd_cli.top.state import View
from esockd_cli.top.table import Column
from esockd_cli.top.text import format_bytes, format_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from esockd_cli.top.canvas import Span
    from esockd_cli.top.glyphs import Glyphs
    from esockd_cli.top.rates import DurationsName, Track


def listener_columns(view: View, tracks: Sequence[Track], glyphs: Glyphs) -> list[Column[Track]]:
    """The columns of one of the views of listeners.

    Args:
        view: Which.
        tracks: The rows, by which names and addresses get their widths.
        glyphs: The characters to use.
    """
    make = {View.TRAFFIC: _traffic, View.REJECTS: _refusals, View.LATENCY: _latency}.get(view, _listeners)
    return [name_column(tracks, glyphs), *make(tracks, glyphs)]


def handshake_failures(track: Track) -> int:
    """Connections whose PROXY header or TLS handshake failed."""
    return sum(track.listener.stats.handshake_failures.values())


def _listeners(tracks: Sequence[Track], glyphs: Glyphs) -> list[Column[Track]]:
    return [
        address_column(tracks, glyphs),
        state_column(),
        *connections_columns(tracks, glyphs),
        accepts_column(glyphs),
        trend_column("accepts", glyphs),
        bytes_column("IN/S", "bytes_in", glyphs),
        trend_column("bytes_in", glyphs),
        bytes_column("OUT/S", "bytes_out", glyphs),
        trend_column("bytes_out", glyphs),
        queue_column(),
        rate_column("REJECTS/S", lambda rates: rates.refusals, glyphs, style=Style.BAD),
        *datagram_columns(tracks, glyphs, ("DROPS/S", lambda rates: rates.drops, 2, Style.BAD)),
        count_column("HS FAILS", handshake_failures, style=Style.WARN, rank=6),
    ]


def _traffic(tracks: Sequence[Track], glyphs: Glyphs) -> list[Column[Track]]:
    return [
        bytes_column("IN/S", "bytes_in", glyphs, rank=0),
        trend_column("bytes_in", glyphs, least=10, most=60),
        bytes_column("OUT/S", "bytes_out", glyphs, rank=0),
        trend_column("bytes_out", glyphs, least=10, most=60),
        _total_bytes_column("TOTAL IN", lambda track: track.listener.stats.bytes_in),
        _total_bytes_column("TOTAL OUT", lambda track: track.listener.stats.bytes_out),
        *datagram_columns(
            tracks,
            glyphs,
            ("DGRAMS IN/S", lambda rates: rates.datagrams_in, 2, Style.PLAIN),
            ("DGRAMS OUT/S", lambda rates: rates.datagrams_out, 2, Style.PLAIN),
            ("DROPS/S", lambda rates: rates.drops, 3, Style.BAD),
        ),
        rate_column("ACCEPTS/S", lambda rates: rates.accepts, glyphs, rank=4),
        count_column("ACCEPTED", lambda track: track.listener.stats.accepted, rank=6),
        count_column("OPEN", lambda track: track.listener.stats.current_connections, rank=5),
    ]


def _total_bytes_column(title: str, value: Callable[[Track], int]) -> Column[Track]:
    return Column(
        title=title, cell=lambda track, _: [(format_bytes(value(track)), Style.PLAIN)], width=9, rank=7, key=value
    )


def _refusals(tracks: Sequence[Track], glyphs: Glyphs) -> list[Column[Track]]:
    # Each is a counter; those that point at somebody rather than at a limit are the last to go.
    return [
        rate_column("REJECTS/S", lambda rates: rates.refusals, glyphs, style=Style.BAD),
        trend_column("refusals", glyphs, most=40),
        *datagram_columns(
            tracks,
            glyphs,
            ("DROPS/S", lambda rates: rates.drops, 2, Style.BAD),
            ("QUEUE FULL/S", lambda rates: rates.dropped.get("queue_full", 0.0), 3, Style.WARN),
            ("KERNEL/S", lambda rates: rates.dropped.get("kernel_overflow", 0.0), 3, Style.WARN),
            ("TOO MANY/S", lambda rates: rates.dropped.get("packet_rate", 0.0), 4, Style.WARN),
        ),
        count_column("FORBIDDEN", lambda track: track.listener.stats.closed_forbidden),
        count_column("MAX LIMIT", lambda track: track.listener.stats.closed_max_limit),
        count_column("RATE LIMITED", lambda track: track.listener.stats.closed_rate_limited),
        count_column("OVERLOADED", lambda track: track.listener.stats.closed_overloaded, rank=4),
        count_column("EARLY", lambda track: track.listener.stats.closed_early, rank=6),
        count_column("OTHER", lambda track: track.listener.stats.closed_other_reasons, rank=7),
        count_column("ACCEPT ERRORS", lambda track: track.listener.stats.closed_sys_limit, style=Style.WARN, rank=5),
        *(
            count_column(title, _failures(reason), style=Style.WARN, rank=rank)
            for title, reason, rank in (
                ("TLS FAILED", "tls_failed", 5),
                ("TLS LATE", "handshake_timeout", 6),
                ("PROXY BAD", "proxy_invalid", 7),
                ("PROXY LATE", "proxy_timeout", 8),
            )
        ),
    ]


def _failures(reason: str) -> Callable[[Track], int]:
    return lambda track: track.listener.stats.shutdown_counts.get(reason, 0)


def _latency(_: Sequence[Track], glyphs: Glyphs) -> list[Column[Track]]:
    return [
        *_quantile_columns("ACCEPT", "accept_delays", glyphs, rank=0),
        *_quantile_columns("HANDSHAKE", "handshakes", glyphs, rank=4),
        *_quantile_columns("LOOP LAG", "loop_lags", glyphs, rank=5),
        rate_column("HANDSHAKES/S", lambda rates: rates.handshakes, glyphs, rank=6),
        count_column("ENTERING", lambda track: track.listener.stats.entering, rank=7),
        count_column("HS FAILS", handshake_failures, style=Style.WARN, rank=8),
    ]


def _quantile_columns(title: str, name: DurationsName, glyphs: Glyphs, *, rank: int) -> list[Column[Track]]:
    return [_quantile_column(title, name, percent, glyphs, rank) for percent in (50, 99)]


def _quantile_column(title: str, name: DurationsName, percent: int, glyphs: Glyphs, rank: int) -> Column[Track]:
    return Column(
        title=f"{title} p{percent}",
        cell=lambda track, _: [quantile_span(track, name, percent, glyphs)],
        width=max(len(title) + 4, 8),
        rank=rank,
        key=lambda track: track.quantile(name, percent / 100) or 0.0,
    )


def quantile_span(track: Track, name: DurationsName, percent: int, glyphs: Glyphs) -> Span:
    """What so many per cent of the durations of the last minute did not exceed, as far as a histogram can tell."""
    durations = track.durations(name)
    seconds = durations.quantile(percent / 100)
    if seconds is None:
        return glyphs.unknown, Style.DIM
    if seconds > durations.bounds[-1]:
        return f"> {format_duration(durations.bounds[-1], glyphs.micro)}", Style.WARN
    return f"{glyphs.at_most} {format_duration(seconds, glyphs.micro)}", Style.PLAIN
