"""The dashboard without a terminal: frames and keys go in, pictures come out."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from esockd_cli.top.connections import connection_columns
from esockd_cli.top.rates import TREND_LENGTH, Model
from esockd_cli.top.screen import Screen
from esockd_cli.top.selection import (
    find_connection,
    find_cursor,
    find_wanted,
    visible_connections,
    visible_tracks,
)
from esockd_cli.top.state import State, View
from esockd_cli.top.table import next_sort
from esockd_cli.top.views import listener_columns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from esockd_cli.top.canvas import Canvas
    from esockd_cli.top.frame import Frame, Lost, Only, Wanted
    from esockd_cli.top.glyphs import Glyphs
    from esockd_cli.top.player import Player
    from esockd_cli.top.recording import Recorder
    from esockd_cli.top.table import Column

MOVES = {"up": -1, "k": -1, "down": 1, "j": 1, "pgup": -20, "pgdn": 20, "home": -1_000_000, "end": 1_000_000}


class Dashboard:
    """What is shown, and what keys do to it.

    Args:
        glyphs: The characters to use.
        player: What is replayed; None when frames come from an instance.
        interval_s: Seconds from one frame to the next.
        only: Which listeners are shown; None for all.
        recorder: What is told of, where it writes down what is shown.

    Attributes:
        model: What there is to see.
        state: What of it is shown.
        is_over: Whether the person has quit.
        must_redraw: Whether the person asked for everything anew.
    """

    def __init__(
        self,
        glyphs: Glyphs,
        player: Player | None = None,
        *,
        interval_s: float = 1.0,
        only: Only | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self.model: Model = Model(only)
        self.state: State = State(interval_s=interval_s)
        self.is_over: bool = False
        self.must_redraw: bool = False
        self._glyphs = glyphs
        self._recorder = recorder
        self._player = player
        self._only = only
        self._lines = 0  # of the screen, once something was drawn on it
        self._held: deque[Frame | Lost] = deque(maxlen=TREND_LENGTH)
        if player is not None:
            self._follow(player)

    # What comes in

    def show(self, seen: Frame | Lost) -> None:
        """Take what was seen next; while the picture stands still it waits."""
        if self.state.is_paused and self._player is None:
            self._held.append(seen)
        else:
            self.model.add(seen)

    def update_lists(self, frame: Frame) -> None:
        """Take other lists of the newest frame."""
        self.model.update_lists(frame)

    @property
    def interval_s(self) -> float:
        """Seconds from one frame to the next."""
        return self.state.interval_s

    def press(self, key: str) -> None:
        """Take a key; one that means nothing here does nothing."""
        if self.state.draft is not None:
            self.state.edit_filter(key)
        elif not (self._player is not None and self._press_in_replay(self._player, key)):
            self._press(key)

    # What goes out

    def draw(self, width: int, height: int) -> Canvas:
        """Draw the screen."""
        position = None if self._player is None else self._player.position
        self._lines = height
        note = "" if self._recorder is None else self._recorder.note
        return Screen(self.model, self.state, self._glyphs, position, note).draw(width, height)

    @property
    def wanted(self) -> Wanted:
        """What the screen needs beyond the counters of every listener."""
        return find_wanted(self.model, self.state, self._glyphs, self._lines)

    # Keys

    def _press(self, key: str) -> None:  # noqa: C901, PLR0912 - one case a key
        state = self.state
        match key:
            case "q" | "Q":
                self.is_over = True
            case "?" | "h":
                state.is_helping = not state.is_helping
            case "esc":
                state.is_helping, state.filter_text = False, state.filter_text if state.is_helping else ""
            case "1" | "2" | "3" | "4" | "5":
                state.view, state.is_helping = View(int(key)), False
            case "tab" | "enter":
                state.has_detail = not state.has_detail
            case "s":
                state.sorts[state.view] = next_sort(self._columns(), state.sort)
            case "S":
                state.sorts[state.view] = state.sort._replace(is_descending=not state.sort.is_descending)
            case "/":
                state.draft, state.is_helping = state.filter_text, False
            case "w":
                state.by_worker = self.model.has_workers and not state.by_worker
            case "+" | "=":
                state.change_interval(1)
            case "-":
                state.change_interval(-1)
            case "space" | "p":
                self._pause()
            case "redraw":
                self.must_redraw = True
            case "[" | "]":
                self._move_listener(-1 if key == "[" else 1)
            case _ if key in MOVES:
                self._move(MOVES[key])

    def _press_in_replay(self, player: Player, key: str) -> bool:
        """Take a key that means something else, or anything at all, in a replay only."""
        match key:
            case "space" | "p":
                player.is_paused = not player.is_paused
                return True
            case "+" | "=" | "-":
                player.change_speed(-1 if key == "-" else 1)
                return True
            case "," | ".":
                player.step(-1 if key == "," else 1)
            case "left" | "right":
                player.seek(-10 if key == "left" else 10)
            case "<" | ">":
                player.seek(-60 if key == "<" else 60)
            case "g" | "G":
                player.go_to_end(is_last=key == "G")
            case _:
                return False
        self._follow(player)
        return True

    def _follow(self, player: Player) -> None:
        self.model = Model(self._only)
        for seen in player.past():
            self.model.add(seen)

    def _pause(self) -> None:
        self.state.is_paused = not self.state.is_paused
        while self._held and not self.state.is_paused:
            self.model.add(self._held.popleft())

    def _columns(self) -> Sequence[Column[Any]]:
        if self.state.view == View.CONNECTIONS:
            return connection_columns((), 0.0, self._glyphs)
        return listener_columns(self.state.view, self.model.summed(), self._glyphs)

    def _move(self, count: int) -> None:
        if self.state.view != View.CONNECTIONS:
            self._move_listener(count)
            return
        tracks = visible_tracks(self.model, self.state, self._glyphs)
        now = 0.0 if self.model.frame is None else self.model.frame.at
        track = tracks[find_cursor(tracks, self.state)] if tracks else None
        connections = visible_connections(track, self.state, now, self._glyphs)
        if connections:
            index = find_connection(connections, self.state) + count
            self.state.connection = connections[max(0, min(index, len(connections) - 1))].id

    def _move_listener(self, count: int) -> None:
        tracks = visible_tracks(self.model, self.state, self._glyphs)
        if tracks:
            index = max(0, min(find_cursor(tracks, self.state) + count, len(tracks) - 1))
            self.state.selected = tracks[index].key
