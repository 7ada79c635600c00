"""The help: every key, and what the columns count."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from esockd_cli.top.canvas import Style

if TYPE_CHECKING:
    from esockd_cli.top.canvas import Area

LEAST_WIDTH: Final = 124  # of two columns
Entries = tuple[tuple[str, str], ...]

KEYS: Final[Entries] = (
    ("1 2 3 4 5", "listeners, traffic, rejects, latency, connections"),
    ("tab", "details of the listener with the cursor"),
    ("up down", "move the cursor; pgup pgdn, home end"),
    ("[ ]", "the listener before, the next one"),
    ("s S", "sort by the next column; the other way round"),
    ("/", "show only what contains a text, or a network"),
    ("esc", "take the filter back; leave this help"),
    ("space p", "stand still; go on"),
    ("+ -", "a longer interval, a shorter one"),
    ("w", "each worker by itself"),
    ("ctrl-l", "draw everything anew"),
    ("q", "quit"),
)
REPLAY_KEYS: Final[Entries] = (
    ("space p", "stand still; play"),
    (", .", "a moment back, a moment on"),
    ("left right", "10 seconds back, 10 seconds on"),
    ("< >", "a minute back, a minute on"),
    ("g G", "to the beginning, to the end"),
    ("+ -", "faster, slower"),
)
WORDS: Final[Entries] = (
    ("CONNECTIONS", "open now, of max_connections"),
    ("ACCEPTS/S", "sockets admitted a second"),
    ("IN/S OUT/S", "bytes received and sent a second"),
    ("QUEUE", "clients waiting for accept, of the backlog"),
    ("REJECTS/S", "sockets turned away by rule, limit or load"),
    ("DROPS/S", "datagrams that reached no handler a second"),
    ("HS FAILS", "failed TLS handshakes and PROXY headers"),
    ("ACCEPT", "from accept until the handler ran"),
    ("LOOP LAG", "how late the event loop woke up"),
)


def draw_help(area: Area, *, is_replay: bool) -> None:
    """Draw the help, in two columns where there is width for them."""
    replayed = {key for key, _ in REPLAY_KEYS} if is_replay else set()
    keys = [("KEYS", ""), *(entry for entry in KEYS if entry[0] not in replayed)]
    more = [*([("REPLAY", ""), *REPLAY_KEYS, ("", "")] if is_replay else []), ("WORDS", ""), *WORDS]
    if area.width >= LEAST_WIDTH:
        _draw_entries(area.part(2, width=area.width // 2), keys)
        _draw_entries(area.part(2 + area.width // 2), more)
    else:
        _draw_entries(area.part(2), [*keys, ("", ""), *more])


def _draw_entries(area: Area, entries: list[tuple[str, str]]) -> None:
    for y, (name, meaning) in enumerate(entries):
        area.put(0, y, name, Style.BOLD if meaning else Style.HEAD)
        area.put(13, y, meaning)
