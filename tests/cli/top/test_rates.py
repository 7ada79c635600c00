"""Rates and trends from counters that only grow, through restarts and silence."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.cli.top.scene import make_instance, make_stats, make_status, spread

from esockd_cli.top.frame import Frame, ListenerFrame, ListenerKey, Lost, key_of
from esockd_cli.top.rates import Model, Track, durations_since, rates_between, total_rates, total_trend
from esockd_core import Durations, TopSource

ECHO = ListenerKey("echo", "5000")


def frame(uptime_s: float, pid: int = 7, **counters: object) -> Frame:
    stats = make_stats(**counters)
    listener = ListenerFrame(status=make_status("echo", "5000"), stats=stats)
    instance = make_instance(pid=pid, uptime=uptime_s, cpu_time=uptime_s / 4)
    return Frame(at=1e9 + uptime_s, instance=instance, listeners=(listener,))


def feed(*seen: Frame | Lost) -> Model:
    model = Model()
    for each in seen:
        model.add(each)
    return model


def echo(model: Model) -> Track:
    return model.tracks[ECHO]


def trend(model: Model) -> list[float | None]:
    return list(echo(model).trends["accepts"])


def test_a_rate_is_what_was_counted_by_the_time_it_took() -> None:
    model = feed(frame(10, accepted=100, bytes_in=0), frame(12, accepted=150, bytes_in=4_096))
    rates = echo(model).rates
    assert rates is not None
    assert (rates.accepts, rates.bytes_in) == (25, 2_048)


def test_refusals_and_ends_have_rates_by_their_counter_and_reason() -> None:
    rates = rates_between(
        make_stats(closed_forbidden=1, shutdown_counts={"normal": 5}),
        make_stats(closed_forbidden=3, closed_early=1, shutdown_counts={"normal": 9, "reset": 2}),
        2.0,
    )
    assert rates is not None
    assert rates.refusals == 1  # who left early was not refused
    assert (rates.refused["closed_forbidden"], rates.refused["closed_early"]) == (1, 0.5)
    assert rates.ended == {"normal": 2, "reset": 1}


def test_datagrams_have_rates_and_dropped_ones_by_their_cause() -> None:
    old = make_stats(datagrams_in=10, datagrams_dropped={"queue_full": 1})
    new = make_stats(datagrams_in=30, datagrams_out=8, datagrams_dropped={"queue_full": 3, "packet_rate": 4})
    rates = rates_between(old, new, 2.0)
    assert rates is not None
    assert (rates.datagrams_in, rates.datagrams_out, rates.drops) == (10, 4, 3)
    assert rates.dropped == {"queue_full": 1, "packet_rate": 2}
    assert rates_between(new, old, 2.0) is None


def test_the_first_frame_has_no_rates() -> None:
    model = feed(frame(10, accepted=100))
    assert echo(model).rates is None
    assert total_rates(model.tracks.values()) is None
    assert trend(model) == [None]


def test_no_time_means_no_rates() -> None:
    assert echo(feed(frame(10), frame(10, accepted=1))).rates is None


@pytest.mark.parametrize(
    "second",
    [frame(13, accepted=4), frame(13, accepted=200, bytes_in=1), frame(2, accepted=300), frame(13, 8, accepted=300)],
    ids=["a counter went back", "another counter went back", "the process is younger", "it is another process"],
)
def test_counters_that_began_anew_leave_a_gap_and_no_rate(second: Frame) -> None:
    model = feed(frame(11, accepted=99, bytes_in=9), frame(12, accepted=100, bytes_in=9), second)
    assert echo(model).rates is None
    assert trend(model) == [None, 1, None]
    third = replace(second, instance=replace(second.instance, uptime=second.instance.uptime + 1))
    model.add(third)
    assert trend(model) == [None, 1, None, 0]


def test_an_instance_that_is_gone_leaves_gaps_and_its_last_frame() -> None:
    model = feed(frame(1), frame(2, accepted=5), Lost(at=1e9 + 3, reason="refused"), Lost(at=1e9 + 4, reason="refused"))
    assert model.lost is not None
    assert model.frame == frame(2, accepted=5)
    assert trend(model) == [None, 5, None, None]
    assert echo(model).rates is None


def test_a_gap_has_as_many_intervals_as_have_passed_however_often_somebody_looked() -> None:
    lost = [Lost(at=1e9 + 20 + second, reason="refused") for second in range(1, 26)]
    assert trend(feed(frame(10), frame(20, accepted=50), *lost)) == [None, 5, None, None]


def test_an_instance_that_answers_again_goes_on_where_it_was() -> None:
    model = feed(frame(1), frame(2, accepted=5), Lost(at=1e9 + 3, reason="slow"), frame(4, accepted=9))
    assert model.lost is None
    assert trend(model) == [None, 5, None, 2]


def test_a_listener_that_is_closed_is_forgotten_and_a_new_one_has_an_empty_past() -> None:
    both = frame(3)
    other = replace(both.listeners[0], status=make_status("other", "5000"))
    model = feed(frame(1), frame(2), replace(both, listeners=(*both.listeners, other)))
    assert list(model.tracks[key_of(other)].trends["accepts"]) == [None, None, None]
    model.add(replace(frame(4), listeners=(other,)))
    assert list(model.tracks) == [key_of(other)]


def test_latencies_are_those_of_the_last_minute() -> None:
    slow, fast = Durations((0,) * 16 + (5,), 60.0), Durations((95, *(0,) * 15, 5), 60.0)
    model = feed(frame(1, accept_delays=slow), frame(30, accept_delays=slow), frame(70, accept_delays=fast))
    assert echo(model).quantile("accept_delays", 0.99) == 0.0001
    assert echo(model).durations("accept_delays").count == 95
    assert echo(model).quantile("handshakes", 0.5) is None


def test_durations_of_another_histogram_are_not_subtracted() -> None:
    old, new = spread(100, 50, 50), spread(10, 50, 50)
    assert durations_since(old, new) is new
    assert durations_since(Durations((1, 2), 1.0, (0.5,)), new) is new


def test_lists_that_come_between_two_intervals_change_no_counters() -> None:
    model = feed(frame(1), frame(2, accepted=5))
    late = frame(2.1, accepted=6)
    model.update_lists(replace(late, listeners=(replace(late.listeners[0], sources=(TopSource("192.0.2.1", 9, 1),)),)))
    assert echo(model).listener.sources[0].attempts == 9
    assert echo(model).listener.stats.accepted == 5
    assert trend(model) == [None, 5]


def test_only_some_listeners_count_where_only_some_are_wanted() -> None:
    model = Model(lambda status: status.name == "other")
    model.add(frame(1))
    assert model.frame is not None
    assert model.frame.listeners == ()
    assert model.tracks == {}


def test_the_processor_is_a_rate_too() -> None:
    assert feed(frame(1)).cpu is None
    assert feed(frame(1), frame(3)).cpu == 0.25
    assert feed(frame(1), frame(3, 8)).cpu is None


def test_totals_add_what_is_known() -> None:
    first, second = frame(1), frame(2, accepted=4)
    quiet = replace(first.listeners[0], status=make_status("quiet", "5000"))
    model = feed(first, replace(second, listeners=(*second.listeners, quiet)))
    rates = total_rates(model.tracks.values())
    assert rates is not None
    assert rates.accepts == 4
    assert total_trend(model.tracks.values(), "accepts") == [None, 4]
    assert total_trend([], "accepts") == []


def test_workers_are_shown_together_or_each_by_itself() -> None:
    whole = frame(1).listeners[0]
    model = feed(replace(frame(1), listeners=(whole, replace(whole, worker=0), replace(whole, worker=1))))
    assert model.has_workers
    assert [track.listener.worker for track in model.summed()] == [None]
    assert [track.listener.worker for track in model.summed(by_worker=True)] == [0, 1]
