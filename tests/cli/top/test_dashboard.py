"""What each key does."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from tests.cli.top.scene import PLANS, make_frame, make_listener

from esockd_cli.top.dashboard import Dashboard
from esockd_cli.top.frame import Frame, ListenerKey, Lost, Wanted
from esockd_cli.top.glyphs import BLOCKS
from esockd_cli.top.player import Player
from esockd_cli.top.state import View

NAMES = [plan.name for plan in PLANS]


class Moments:
    def __len__(self) -> int:
        return 100

    def moment(self, index: int) -> Frame | Lost:
        return make_frame(index)


def show(*keys: str, frames: int = 3) -> Dashboard:
    dashboard = Dashboard(BLOCKS)
    for second in range(frames):
        dashboard.show(make_frame(second))
    for key in keys:
        dashboard.press(key)
    return dashboard


def replay(*keys: str) -> tuple[Dashboard, Player]:
    player = Player(Moments())
    dashboard = Dashboard(BLOCKS, player)
    for key in keys:
        dashboard.press(key)
    return dashboard, player


def picture(dashboard: Dashboard, width: int = 120, height: int = 30) -> str:
    return "\n".join(row.text.rstrip() for row in dashboard.draw(width, height).rows())


def cursor(dashboard: Dashboard) -> str:
    """The row with the cursor, by its first word."""
    return next(line for line in picture(dashboard).splitlines() if line.startswith("\u25b8")).split()[1]


def column(dashboard: Dashboard) -> list[str]:
    """The first words of the table's rows."""
    lines = iter(picture(dashboard, height=20).splitlines()[:-1])
    next(line for line in lines if line.startswith(("  LISTENER", "  PEER")))
    return [line[2:].split()[0] for line in itertools.takewhile(lambda line: line[2:].strip(), lines)]


@pytest.mark.parametrize("view", list(View))
def test_a_digit_shows_its_view(view: View) -> None:
    assert show(str(view.value)).state.view == view


def test_q_quits_and_nothing_else_does() -> None:
    keys = "abcdefgijklmnortuvxyzABCDEFGHIJKLMNOPRTUVWXYZ09~`!@#$%^&*()_{}|\\:;'\"<>,"
    assert not show(*keys, "esc", "tab", "space", "backspace", "left", "right").is_over
    assert show("q").is_over


def test_the_cursor_moves_within_the_listeners() -> None:
    assert cursor(show()) == "mqtt"
    assert cursor(show("down")) == "mqtts"
    assert cursor(show("down", "down", "up")) == "mqtts"
    assert cursor(show("up")) == "mqtt"
    assert cursor(show("end")) == "legacy"
    assert cursor(show("pgdn", "home")) == "mqtt"
    assert cursor(show("]", "]", "[")) == "mqtts"


def test_the_cursor_stays_with_its_listener_when_the_order_changes() -> None:
    dashboard = show("down", "down")
    assert cursor(dashboard) == "redis-gateway"
    dashboard.press("s")
    assert cursor(dashboard) == "redis-gateway"


def test_the_cursor_is_on_the_first_when_its_listener_is_gone() -> None:
    dashboard = show("end")
    dashboard.show(make_frame(3, PLANS[:2]))
    assert cursor(dashboard) == "mqtt"


def test_s_sorts_by_the_next_column_and_capital_s_turns_the_order_round() -> None:
    assert column(show()) == NAMES
    assert column(show("s")) == sorted(NAMES)
    assert column(show("s", "S")) == sorted(NAMES, reverse=True)
    assert column(show("s", "s", "s", "s")) == ["mqtts", "mqtt", "redis-gateway", "legacy", "admin"]
    assert "by CONNECTIONS" in picture(show("s", "s", "s", "s"))


def test_each_view_has_an_order_of_its_own() -> None:
    dashboard = show("s", "2")
    assert column(dashboard) == NAMES
    dashboard.press("1")
    assert column(dashboard) == sorted(NAMES)


def test_a_filter_holds_while_it_is_typed() -> None:
    dashboard = show("/", "m", "q")
    assert "filter: mq" in picture(dashboard)
    assert column(dashboard) == ["mqtt", "mqtts"]
    dashboard.press("backspace")
    assert column(dashboard) == ["mqtt", "mqtts", "admin"]
    assert not dashboard.is_over


def test_enter_keeps_a_filter_and_esc_takes_it_back() -> None:
    dashboard = show("/", "s", "u", "s", "p", "enter")
    assert column(dashboard) == ["legacy"]
    assert "filter: susp" in picture(dashboard)
    dashboard.press("esc")
    assert column(dashboard) == NAMES
    assert column(show("/", "x", "y", "esc")) == NAMES


def test_a_filter_that_nothing_contains_says_so() -> None:
    assert "no listener contains that" in picture(show("/", "space", "z", "z", "enter"))


def test_a_filter_can_be_erased_and_has_a_greatest_length() -> None:
    assert show("/", "a", "b", "erase").state.filter_text == ""
    assert len(show("/", *"x" * 100).state.filter_text) == 64
    assert show("/", "up", "tab", "left").state.filter_text == ""


def test_connections_are_filtered_by_network_or_by_text() -> None:
    dashboard = show("5", "/", *"203.0.113.0/24", "enter")
    assert set(column(dashboard)) == {"203.0.113.7:50211"}
    assert dashboard.wanted.network == "203.0.113.0/24"
    assert set(column(show("5", "/", *"2001:db8::/32", "enter"))) == {"[2001:db8:17::9]:41100"}
    dashboard = show("5", "/", *"drain", "enter")
    assert dashboard.wanted.network is None
    assert len(column(dashboard)) > 1


def test_listeners_and_connections_have_a_filter_each() -> None:
    dashboard = show("/", *"mqtt", "enter", "5")
    assert len(column(dashboard)) > 2
    dashboard.press("2")
    assert column(dashboard) == ["mqtt", "mqtts"]


def test_the_cursor_moves_within_the_connections_and_stays_with_its_own() -> None:
    dashboard = show("5", "down", "down")
    assert dashboard.state.connection == 3
    dashboard.press("end")
    assert dashboard.state.connection == 60
    dashboard.press("pgup")
    assert dashboard.state.connection == 40
    assert show("5", "]", "home").state.selected == ListenerKey("mqtts", "tls://*:8883")


def test_a_listener_without_connections_shows_an_empty_list() -> None:
    frame = make_frame(5)
    dashboard = show("5")
    dashboard.show(replace(frame, listeners=(replace(frame.listeners[0], connections=()),)))
    dashboard.press("down")
    assert column(dashboard) == []


def test_space_stands_still_and_then_shows_what_happened_meanwhile() -> None:
    dashboard = show("space", frames=2)
    before = picture(dashboard)
    assert "PAUSED" in before
    dashboard.show(make_frame(2))
    dashboard.show(make_frame(3))
    assert picture(dashboard) == before
    dashboard.press("p")
    assert dashboard.model.frame == make_frame(3)
    assert len(next(iter(dashboard.model.tracks.values())).trends["accepts"]) == 4


def test_plus_and_minus_change_the_interval_within_bounds() -> None:
    assert show("+").state.interval_s == 2
    assert show("-").state.interval_s == 0.5
    assert show(*"-" * 20).state.interval_s == 0.2
    assert show(*"+" * 20).state.interval_s == 60


def test_tab_shows_the_details_of_the_listener_with_the_cursor() -> None:
    dashboard = show("tab", "down")
    assert "tls_failed" in picture(dashboard)
    dashboard.press("tab")
    assert "tls_failed" not in picture(dashboard)


def test_help_lists_the_keys_and_goes_away() -> None:
    dashboard = show("?")
    assert "KEYS" in picture(dashboard)
    dashboard.press("esc")
    assert "KEYS" not in picture(dashboard)
    assert "KEYS" not in picture(show("?", "2"))


def test_esc_leaves_the_help_and_keeps_the_filter() -> None:
    assert show("/", "m", "enter", "?", "esc").state.filter_text == "m"


def test_workers_are_shown_only_where_there_are_some() -> None:
    assert not show("w").state.by_worker
    frame = make_frame(4)
    parts = tuple(replace(make_listener(PLANS[0], 4, 0), worker=index) for index in range(2))
    dashboard = show()
    dashboard.show(replace(frame, listeners=(*frame.listeners, *parts)))
    assert column(dashboard) == NAMES
    dashboard.press("w")
    assert column(dashboard) == ["mqtt/0", "mqtt/1"]


def test_only_what_is_on_the_screen_is_asked_for() -> None:
    mqtt = ListenerKey("mqtt", "*:1883")
    assert show().wanted == Wanted()
    assert Dashboard(BLOCKS).wanted == Wanted()
    assert show("tab").wanted == Wanted(mqtt)
    assert show("3").wanted == Wanted(mqtt)


def test_connections_are_asked_for_down_to_the_cursor_and_a_screen_beyond() -> None:
    mqtt = ListenerKey("mqtt", "*:1883")
    dashboard = show("5")
    picture(dashboard, height=30)
    assert dashboard.wanted == Wanted(mqtt, 50)
    dashboard.press("pgdn")
    dashboard.press("down")
    assert dashboard.wanted == Wanted(mqtt, 100)


def test_all_connections_there_are_to_have_are_asked_for_to_sort_or_search_them() -> None:
    mqtt = ListenerKey("mqtt", "*:1883")
    assert show("5", "s").wanted == Wanted(mqtt, 1_000)
    assert show("5", "/", "x").wanted == Wanted(mqtt, 1_000)
    assert show("5", "/", *"192.0.2.1").wanted == Wanted(mqtt, 50, "192.0.2.1")


def test_ctrl_l_draws_everything_anew() -> None:
    assert show("redraw").must_redraw


def test_an_instance_that_is_gone_says_so_and_leaves_its_last_numbers() -> None:
    dashboard = show()
    at = make_frame(2).at
    dashboard.show(Lost(at=at + 65, reason="connection refused"))
    shown = picture(dashboard)
    assert "does not answer, for 1m 05s now: connection refused" in shown
    assert "GONE" in shown
    assert column(dashboard) == NAMES
    dashboard.show(make_frame(90))
    assert "GONE" not in picture(dashboard)


def test_before_the_first_frame_it_waits() -> None:
    dashboard = Dashboard(BLOCKS)
    assert "waiting for the first answer" in picture(dashboard)
    for key in ("down", "s", "5", "down", "tab", "w", "/"):
        dashboard.press(key)
        picture(dashboard)
    dashboard.show(Lost(at=0.0, reason="no such file"))
    assert "does not answer: no such file" in picture(dashboard)


def test_a_replay_begins_with_its_first_moment_and_steps() -> None:
    dashboard, player = replay(".", ".", ",")
    assert (player.index, player.is_paused) == (1, True)
    assert dashboard.model.frame == make_frame(1)


def test_a_replay_seeks_with_rates_and_trends_of_the_moments_before() -> None:
    dashboard, player = replay("right", "right")
    assert player.index == 20
    track = next(iter(dashboard.model.tracks.values()))
    assert len(track.trends["accepts"]) == 21
    assert track.rates is not None
    for key, index in ((">", 80), ("G", 99), ("left", 89), ("<", 29), ("g", 0)):
        dashboard.press(key)
        assert player.index == index
    assert dashboard.model.frame == make_frame(0)


def test_a_replay_pauses_and_changes_speed_where_live_changes_the_interval() -> None:
    dashboard, player = replay("space", "+", "+", "-")
    assert player.is_paused
    assert player.speed == 2
    assert dashboard.state.interval_s == 1
    assert "paused 2x" in picture(dashboard)


def test_other_keys_do_in_a_replay_what_they_always_do() -> None:
    dashboard, _ = replay("2", "tab", "s")
    assert dashboard.state.view == View.TRAFFIC
    assert dashboard.state.has_detail


@pytest.mark.parametrize("width", [1, 2, 10, 39, 59, 60, 200])
@pytest.mark.parametrize("height", [1, 2, 3, 9, 10, 11, 60])
def test_no_screen_is_too_small_or_too_large(width: int, height: int) -> None:
    for keys in ("1", "2", "3", "4", "5", "?", ("1", "tab"), ("5", "tab"), ("/", "x")):
        rows = show(*keys).draw(width, height).rows()
        assert {len(row.text) for row in rows} == {width}
        assert len(rows) == height
        rows = replay(*keys)[0].draw(width, height).rows()
        assert len(rows) == height
