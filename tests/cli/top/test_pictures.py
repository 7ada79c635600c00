"""Every view at every width, as it stands in `pictures/`.

`ESOCKD_NEW_PICTURES=1 pytest tests/cli/top/test_pictures.py` draws them anew; look at them before you commit them.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.cli.top.scene import DATAGRAM_PLANS, PLANS, Plan, make_frame, make_listener

from esockd_cli.top.dashboard import Dashboard
from esockd_cli.top.frame import Frame, Lost, OpenConnection
from esockd_cli.top.glyphs import ASCII, BLOCKS, Glyphs
from esockd_cli.top.player import Player
from esockd_cli.top.text import PAD

if TYPE_CHECKING:
    from collections.abc import Callable

    from esockd_cli.top.canvas import Row

PICTURES = Path(__file__).with_name("pictures")
SIZES = ((200, 40), (160, 34), (120, 30), (100, 30), (80, 24), (60, 20), (50, 24), (40, 12))
FRAMES = 150

HOSTILE = (
    Plan("[bold red]mqtt[/] :smile:", "[fe80::1%eth0]:5000", 5, 10, 9),
    Plan("\x1b[2J\x1b]0;owned\x07\r\n\u202eevil", "unix:/run/\udcff\x1b[31m.sock", 5, 10, 9),
    Plan("a-very-long-name-" * 9, "tls://" + "sub." * 60 + "example.org:65535", 99_999_999, 123_456_789, 5e6, 3e5),
    Plan("\u8fb9\u7f18\u7f51\u5173\u8fb9\u7f18\u7f51\u5173", "*:1", 0, 0, 0.0),
    Plan("", "", 1, 1, 0.0, state="a-state-of-another-version"),
)


class Moments:
    """A recording in memory."""

    def __len__(self) -> int:
        return FRAMES

    def moment(self, index: int) -> Frame | Lost:
        """One of its moments."""
        return make_frame(index)


def live(*keys: str, plans: tuple[Plan, ...] = PLANS, glyphs: Glyphs = BLOCKS) -> Dashboard:
    """The dashboard after some frames and keys."""
    dashboard = Dashboard(glyphs)
    for second in range(FRAMES):
        dashboard.show(make_frame(second, plans))
    for key in keys:
        dashboard.press(key)
    return dashboard


def gone() -> Dashboard:
    """An instance that has died."""
    dashboard = live()
    for second in range(1, 8):
        at = make_frame(FRAMES - 1).at + second
        dashboard.show(Lost(at=at, reason="no instance listens on /run/esockd/edge.sock"))
    return dashboard


def replayed() -> Dashboard:
    """A recording in the middle, at four times its speed."""
    player = Player(Moments(), 4.0)
    dashboard = Dashboard(BLOCKS, player)
    for key in (">", ",", "space"):
        dashboard.press(key)
    return dashboard


def crowded() -> Dashboard:
    """More listeners than lines, sorted by name, with the cursor in the midst of them."""
    plans = tuple(replace(PLANS[index % 4], name=f"listener-{index:02}") for index in range(60))
    return live("s", *["down"] * 30, plans=plans)


def by_worker() -> Dashboard:
    """Each worker by itself."""
    dashboard = live()
    frame = make_frame(FRAMES)
    parts = tuple(replace(make_listener(PLANS[0], FRAMES, 0), worker=index) for index in range(4))
    instance = replace(frame.instance, workers=4)
    dashboard.show(replace(frame, instance=instance, listeners=(*frame.listeners, *parts)))
    dashboard.press("w")
    return dashboard


def hostile_connections() -> Dashboard:
    """Connections of peers that try to write on the terminal."""
    peers = (
        "unix:\x1b[2J",
        "[fe80::1%\x07]:1",
        "[2001:db8:ffff:ffff:ffff:ffff:ffff:ffff%very-long-interface]:65535",
        "",
    )
    connections = tuple(
        OpenConnection(id=2**63 + index, peer=peer, opened_at=0.0, bytes_out=2**63, tls="TLS\x1b", via=peer)
        for index, peer in enumerate(peers)
    )
    frame = make_frame(1)
    dashboard = Dashboard(BLOCKS)
    dashboard.show(replace(frame, listeners=(replace(frame.listeners[0], connections=connections),)))
    dashboard.press("5")
    return dashboard


SCREENS: dict[str, Callable[[], Dashboard]] = {
    "1-listeners": live,
    "2-traffic": lambda: live("2"),
    "3-rejects": lambda: live("3", "down"),
    "4-latency": lambda: live("4", "down"),
    "5-connections": lambda: live("5", "down"),
    "detail": lambda: live("down", "tab"),
    "help": lambda: live("?"),
    "filter": lambda: live("/", "m", "q"),
    "sorted": lambda: live("s", "s", "s", "s"),
    "ascii": lambda: live(glyphs=ASCII),
    "datagrams": lambda: live(plans=DATAGRAM_PLANS),
    "datagrams-traffic": lambda: live("2", plans=DATAGRAM_PLANS),
    "datagrams-rejects": lambda: live("3", plans=DATAGRAM_PLANS),
    "datagrams-detail": lambda: live("tab", plans=DATAGRAM_PLANS),
    "waiting": lambda: Dashboard(BLOCKS),
    "empty": lambda: live(plans=()),
    "gone": gone,
    "replay": replayed,
    "crowded": crowded,
    "workers": by_worker,
    "hostile-names": lambda: live(plans=HOSTILE),
    "hostile-details": lambda: live("down", "down", "tab", plans=HOSTILE),
    "hostile-connections": hostile_connections,
}


def write(rows: list[Row]) -> str:
    """Rows as a text file has them."""
    return "\n".join(row.text.replace(PAD, "").rstrip() for row in rows)


@pytest.mark.parametrize("name", list(SCREENS))
def test_a_screen_looks_as_it_should_at_every_width(name: str) -> None:
    dashboard = SCREENS[name]()
    drawn = "".join(
        f"==== {width}x{height}\n{write(dashboard.draw(width, height).rows())}\n" for width, height in SIZES
    )
    file = PICTURES / f"{name}.txt"
    if os.environ.get("ESOCKD_NEW_PICTURES"):
        file.write_text(drawn)
    assert drawn == file.read_text()


def test_colors_are_where_they_should_be() -> None:
    rows = live("down", "tab").draw(100, 30).rows()
    drawn = "".join(f"{row.text.replace(PAD, '').rstrip()}\n{row.styles.rstrip('.')}\n" for row in rows)
    file = PICTURES / "styles.txt"
    if os.environ.get("ESOCKD_NEW_PICTURES"):
        file.write_text(drawn)
    assert drawn == file.read_text()


def test_ascii_pictures_are_ascii() -> None:
    for keys in ("12345?", ("tab",), ("4",), ("5",)):
        assert write(live(*keys, glyphs=ASCII).draw(160, 40).rows()).isascii()
