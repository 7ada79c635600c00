"""The whole screen: title, facts, tabs, a table, what stands below it, and the lines at the bottom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from esockd_cli.top.canvas import Canvas, Style
from esockd_cli.top.charts import draw_charts
from esockd_cli.top.columns import name_of
from esockd_cli.top.connections import connection_columns
from esockd_cli.top.footer import draw_footer
from esockd_cli.top.header import draw_facts, draw_tabs, draw_title
from esockd_cli.top.help import draw_help
from esockd_cli.top.panels import detail_panels, distribution_panels, draw_panels, draw_refusals
from esockd_cli.top.selection import find_connection, find_cursor, visible_connections, visible_tracks
from esockd_cli.top.state import View
from esockd_cli.top.table import draw_table
from esockd_cli.top.text import clip, clip_middle, format_count, to_cells
from esockd_cli.top.views import listener_columns

if TYPE_CHECKING:
    from esockd_cli.top.canvas import Area, Spans
    from esockd_cli.top.glyphs import Glyphs
    from esockd_cli.top.player import Position
    from esockd_cli.top.rates import Model, Track
    from esockd_cli.top.state import State

SMALL_WIDTH: Final = 60
SMALL_HEIGHT: Final = 10
LEAST_PANE: Final = 5  # lines under the table that are worth filling


@dataclass(frozen=True, slots=True)
class Screen:
    """Draws a model as the state wants it.

    Attributes:
        model: What there is to see.
        state: What of it.
        glyphs: The characters to use.
        position: Where a replay is; None when this is live.
        note: Something to say at the bottom; "" for nothing.
    """

    model: Model
    state: State
    glyphs: Glyphs
    position: Position | None = None
    note: str = ""

    def draw(self, width: int, height: int) -> Canvas:
        """Draw everything."""
        canvas = Canvas(width, height)
        area = canvas.area
        is_small = width < SMALL_WIDTH or height < SMALL_HEIGHT
        draw_title(area, self.model, self.state, self.glyphs, is_live=self.position is None)
        end = draw_footer(
            area, self.state, self.glyphs, position=self.position, note=self.note, is_small=is_small
        )  # fmt: skip
        body = area.part(y=1, height=end - 1)
        if not is_small or self.model.lost is not None or self.model.frame is None:
            facts = body.part(height=2 if height >= 2 * SMALL_HEIGHT else 1)
            body = body.part(y=draw_facts(facts, self.model, self.glyphs))
        if not is_small:
            body = body.part(y=int(height >= 2 * SMALL_HEIGHT))
            draw_tabs(body, self.state, self._summary())
            body = body.part(y=1)
        if self.state.is_helping:
            draw_help(body, is_replay=self.position is not None)
        elif self.model.frame is not None:
            self._draw_body(body, self.model.frame.at, is_small=is_small)
        return canvas

    def _summary(self) -> Spans:
        words = []
        if self.state.filter_text and self.state.draft is None:
            words.append(f"filter: {self.state.filter_text}")
        if self.state.sort.title:
            words.append(f"by {self.state.sort.title}")
        if self.state.by_worker and self.model.has_workers:
            words.append("each worker")
        return [("   ".join(words), Style.DIM)]

    def _draw_body(self, area: Area, now: float, *, is_small: bool) -> None:
        state, tracks = self.state, visible_tracks(self.model, self.state, self.glyphs)
        if not tracks:
            area.put(2, 0, "no listener contains that" if state.filter_text else "no listeners", Style.DIM)
            return
        cursor = find_cursor(tracks, state)
        track = tracks[cursor]
        if state.has_detail and (is_small or area.height < 3 * LEAST_PANE):
            self._draw_pane(area, tracks, track)
            return
        if state.view == View.CONNECTIONS:
            room = area.height // 2 if state.has_detail else area.height
            self._draw_connections(area.part(height=room), track, now)
        else:
            room = min(len(tracks) + 1, area.height // 3 if state.has_detail else area.height)
            columns = listener_columns(state.view, tracks, self.glyphs)
            draw_table(
                area.part(height=room), columns, tracks, cursor=cursor, sort=state.sort, glyphs=self.glyphs
            )  # fmt: skip
        pane = area.part(y=room + 1)
        if pane.height >= LEAST_PANE:
            self._draw_pane(pane, tracks, track)

    def _draw_connections(self, area: Area, track: Track, now: float) -> None:
        rows = visible_connections(track, self.state, now, self.glyphs)
        fetched, current = len(track.listener.connections), track.listener.stats.current_connections
        words = [f"{format_count(current)} open"]
        words += [f"the oldest {format_count(fetched)} here"] * (fetched < current)
        words += [f"{format_count(len(rows))} shown"] * bool(self.state.filter_text)
        self._draw_rule(area, track, ", ".join(words))
        columns = connection_columns(rows, now, self.glyphs)
        cursor = find_connection(rows, self.state)
        draw_table(area.part(y=1), columns, rows, cursor=cursor, sort=self.state.sort, glyphs=self.glyphs)

    def _draw_pane(self, area: Area, tracks: list[Track], track: Track) -> None:
        """Draw what stands below the table: details, or what suits the view, under a rule that says of whom."""
        view, has_detail, refusals = self.state.view, self.state.has_detail, track.listener.refusals
        inner = area.part(2, 1, area.width - 3)
        if not has_detail and view == View.LISTENERS and len(tracks) > 1:
            self._draw_rule(area, None, f"all {len(tracks)} listeners")
            draw_charts(inner, tracks, self.glyphs)
            return
        self._draw_rule(area, track, track.listener.status.state)
        if has_detail:
            kept = min(len(refusals) + 2, inner.height // 3) if refusals else 0
            upper = inner.part(height=inner.height - kept)
            below = draw_panels(upper, detail_panels(track, self.glyphs), self.glyphs)
            if refusals:
                draw_refusals(inner.part(y=below + 1), refusals, self.glyphs)
        elif view == View.REJECTS:
            draw_refusals(inner, refusals, self.glyphs)
        elif view == View.LATENCY:
            draw_panels(inner, distribution_panels(track, self.glyphs, inner.width), self.glyphs)
        else:
            draw_charts(inner, [track], self.glyphs)

    def _draw_rule(self, area: Area, track: Track | None, words: str) -> None:
        area.put(0, 0, self.glyphs.rule * area.width, Style.DIM)
        x = 2
        if track is not None:
            name, room = to_cells(name_of(track)), area.width // 3
            x = area.put(x, 0, f" {clip(name, room, self.glyphs.ellipsis)}", Style.BOLD)
            address = clip_middle(to_cells(track.listener.status.address), room, self.glyphs.ellipsis)
            x = area.put(x, 0, f" {address} ") + 1
        area.put(x, 0, f" {words} ")
