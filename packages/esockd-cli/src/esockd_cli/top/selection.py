"""Which rows are shown, in which order, and which of them has the cursor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from esockd_cli.top.connections import (
    MAX_CONNECTIONS,
    connection_columns,
    filter_connections,
    read_network,
)
from esockd_cli.top.frame import Wanted
from esockd_cli.top.state import View
from esockd_cli.top.table import sort_rows
from esockd_cli.top.views import listener_columns

if TYPE_CHECKING:
    from esockd_cli.top.frame import OpenConnection
    from esockd_cli.top.glyphs import Glyphs
    from esockd_cli.top.rates import Model, Track
    from esockd_cli.top.state import State

AT_A_TIME: Final = 50  # connections: asking for a few more each time would ask all the time


def visible_tracks(model: Model, state: State, glyphs: Glyphs) -> list[Track]:
    """The listeners to show, filtered and sorted."""
    tracks = model.summed(by_worker=state.by_worker and model.has_workers)
    if state.view == View.CONNECTIONS:
        return tracks
    text = state.filter_text.casefold()
    tracks = [
        track
        for track in tracks
        if any(
            text in each.casefold()
            for each in (track.listener.status.name, track.listener.status.address, track.listener.status.state)
        )
    ]
    return sort_rows(tracks, listener_columns(state.view, tracks, glyphs), state.sort)


def find_cursor(tracks: list[Track], state: State) -> int:
    """Which listener has the cursor: the selected one, or the first where that is not shown."""
    return next((index for index, track in enumerate(tracks) if track.key == state.selected), 0)


def visible_connections(track: Track | None, state: State, now: float, glyphs: Glyphs) -> list[OpenConnection]:
    """The connections to show, filtered and sorted."""
    if track is None:
        return []
    connections = filter_connections(track.listener.connections, state.filter_text)
    return sort_rows(connections, connection_columns(connections, now, glyphs), state.sort)


def find_connection(connections: list[OpenConnection], state: State) -> int:
    """Which connection has the cursor; the first where the chosen one is gone."""
    return next((index for index, each in enumerate(connections) if each.id == state.connection), 0)


def find_wanted(model: Model, state: State, glyphs: Glyphs, lines: int) -> Wanted:
    """What a screen of so many lines needs beyond the counters.

    Of connections, each of which costs the instance some microseconds, it needs those down to the cursor and a screen
    beyond; to sort or search them, it needs as many as there are to have.
    """
    tracks = visible_tracks(model, state, glyphs)
    if not tracks:
        return Wanted()
    selected = tracks[find_cursor(tracks, state)]
    if state.view == View.CONNECTIONS:
        network = read_network(state.filter_text)
        if state.sort.title or (state.filter_text and network is None):
            return Wanted(selected.key, MAX_CONNECTIONS)
        needed = find_connection(list(selected.listener.connections), state) + lines
        return Wanted(selected.key, min(MAX_CONNECTIONS, (needed // AT_A_TIME + 1) * AT_A_TIME), network)
    return Wanted(selected.key) if state.has_detail or state.view == View.REJECTS else Wanted()
