"""The parts of `esockd bench` that need no server: histogram, schedule, target, and what is shared out."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esockd_cli._errors import CommandError, UsageError
from esockd_cli.bench.asking import Asked, default_processes, share
from esockd_cli.bench.histogram import BUCKETS, LARGEST, Histogram, write_distribution
from esockd_cli.bench.report import format_duration
from esockd_cli.bench.schedule import NS, Schedule
from esockd_cli.bench.tally import KINDS
from esockd_cli.bench.target import find_target, is_loopback

if TYPE_CHECKING:
    from collections.abc import Sequence

DURATIONS = st.lists(st.integers(0, LARGEST), min_size=1, max_size=200)


def filled(values: Sequence[int]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    return histogram


@given(values=DURATIONS, percent=st.sampled_from([0.1, 50.0, 90.0, 99.0, 99.9, 100.0]))
def test_a_percentile_is_within_a_half_percent_of_the_sorted_durations(values: list[int], percent: float) -> None:
    ordered = sorted(values)
    exact = ordered[max(1, -int(-len(values) * percent // 100)) - 1]
    assert abs(filled(values).percentile(percent) - exact) <= exact / 200


@given(values=DURATIONS, others=DURATIONS)
def test_histograms_of_several_processes_add_up(values: list[int], others: list[int]) -> None:
    merged = filled(values)
    merged.merge(filled(others).as_dict())
    assert merged.as_dict() == filled([*values, *others]).as_dict()
    assert merged.mean == pytest.approx(sum([*values, *others]) / len([*values, *others]))


def test_the_memory_of_a_histogram_is_bounded_and_hours_count_as_the_longest() -> None:
    histogram = filled([0, 1, 127, 128, LARGEST, LARGEST + 1, 1 << 80])
    assert max(index for index, _ in histogram.as_dict()["buckets"]) == BUCKETS - 1
    assert histogram.largest == 1 << 80
    assert histogram.percentile(1) == 0


def test_a_system_that_tells_of_no_affinity_has_load_processes_by_its_number_of_processors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    for processors, expected in ((None, 2), (2, 2), (6, 5), (64, 8)):
        monkeypatch.setattr(os, "cpu_count", lambda processors=processors: processors)
        assert default_processes() == expected


def test_an_empty_histogram_has_no_percentiles_and_does_not_fail() -> None:
    assert (Histogram().percentile(99), Histogram().mean) == (0, 0.0)
    assert "Total count    =            0" in write_distribution(Histogram())


def test_a_distribution_is_written_as_plotters_of_hdrhistogram_read_it() -> None:
    lines = write_distribution(filled([1_000_000, 2_000_000, 2_000_000, 4_000_000])).splitlines()
    assert lines[0].split() == ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]
    rows = [line.split() for line in lines[2:5]]
    assert [(row[1], row[2], row[3]) for row in rows] == [
        ("0.250000000000", "1", "1.33"),
        ("0.750000000000", "3", "4.00"),
        ("1.000000000000", "4", "inf"),
    ]
    assert [float(row[0]) for row in rows] == pytest.approx([1.0, 2.0, 4.0], rel=0.005)
    assert lines[5].startswith("#[Mean    =")


def test_messages_are_due_at_their_rate_whatever_became_of_those_before() -> None:
    schedule = Schedule(4.0, None, 1.0)
    schedule.begin(100)
    assert schedule.take(99) is None
    assert schedule.take(100) == 100
    assert schedule.next_due(100) == 100 + NS // 4
    assert [schedule.take(100 + 5 * NS) for _ in range(4)] == [100 + NS // 4, 100 + NS // 2, 100 + 3 * NS // 4, None]
    assert schedule.next_due(0) is None
    assert schedule.unsent() == 0


def test_what_was_due_and_not_sent_is_known() -> None:
    schedule = Schedule(1000.0, None, 2.0)
    schedule.begin(0)
    assert schedule.take(0) == 0
    assert schedule.unsent() == 1999


@pytest.mark.parametrize(("rate", "requests", "count"), [(None, 3, 3), (10.0, 3, 3), (2.0, 300, 20)])
def test_a_number_of_messages_ends_a_schedule(rate: float | None, requests: int, count: int) -> None:
    schedule = Schedule(rate, requests, 10.0)
    schedule.begin(0)
    taken = 0
    while schedule.take(9 * NS + NS // 2) is not None:
        taken += 1
    assert taken == count


def test_without_a_rate_a_message_is_due_when_asked_for_until_the_end() -> None:
    schedule = Schedule(None, None, 1.0)
    schedule.begin(0)
    assert schedule.take(NS - 1) == NS - 1
    assert schedule.take(NS) is None
    assert schedule.unsent() == 0


@given(total=st.integers(1, 1000), count=st.integers(1, 64))
def test_a_load_is_shared_out_evenly_and_whole(total: int, count: int) -> None:
    shares = [share(total, number, count) for number in range(count)]
    assert sum(shares) == total
    assert max(shares) - min(shares) <= 1


@pytest.mark.parametrize("text", ["5000", "127.0.0.1:5000", "tls://[::1]:5000", "udp://localhost:5000", "unix:/run/a"])
def test_targets_of_this_machine_need_no_leave(text: str) -> None:
    assert find_target(text, may_be_remote=False).hosts


@pytest.mark.parametrize(
    "text",
    ["192.0.2.1:5000", "udp://[2001:db8::1]:5000", "[::ffff:192.0.2.1]:5000", "0.0.0.0:5000", "dtls://8.8.8.8:1"],
)
def test_another_machine_is_loaded_with_leave_only(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        find_target(text, may_be_remote=False)
    assert (refused.value.code, refused.value.hint) == ("remote", "Say --yes-remote where it is yours.")
    assert find_target(text, may_be_remote=True).port


def test_a_name_is_judged_by_every_address_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(host: str, port: int, **_: Any) -> list[Any]:
        return [(0, 0, 0, "", (each, port)) for each in ("127.0.0.1", "127.0.0.1", "192.0.2.7")]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(UsageError, match=r"edge\.example:5000 is not this machine \(edge\.example is 192\.0\.2\.7\)"):
        find_target("edge.example:5000", may_be_remote=False)
    assert find_target("edge.example:5000", may_be_remote=True).hosts == ("127.0.0.1", "192.0.2.7")


def test_a_name_that_nobody_has_is_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(host: str, port: int, **_: Any) -> list[Any]:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(CommandError, match=r'there is no host "nowhere\.example"'):
        find_target("nowhere.example:5000", may_be_remote=False)


@pytest.mark.parametrize("text", ["*:5000", "127.0.0.1:0", "fd:3", "systemd:echo", "what"])
def test_a_place_to_listen_is_not_always_one_to_connect_to(text: str) -> None:
    with pytest.raises(UsageError):
        find_target(text, may_be_remote=True)


def test_loopback_addresses_are_known_in_every_form() -> None:
    assert all(map(is_loopback, ("127.8.9.1", "::1", "::ffff:127.0.0.1")))
    assert not any(map(is_loopback, ("::ffff:10.0.0.1", "10.0.0.1", "::")))


@pytest.mark.parametrize(
    ("changes", "transport"),
    [
        ({"size": 0}, "tcp"),
        ({"size": 0, "mode": "connect"}, "udp"),
        ({"size": 65_508}, "udp"),
        ({"size": 16_385}, "dtls"),
        ({"mode": "idle", "requests": 5}, "tcp"),
        ({"mode": "idle"}, "udp"),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, Any], transport: str) -> None:
    given: dict[str, Any] = {
        "target": "5000", "mode": "echo", "connections": 1, "rate": None, "duration": 1.0, "requests": None, "size": 64,
        "timeout": 1.0, "processes": None, "histogram": None, "may_be_remote": False,
    }  # fmt: skip
    Asked(**given).check(transport)
    with pytest.raises(UsageError):
        Asked(**given | changes).check(transport)


def test_the_page_has_every_kind_of_error() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs/bench.md").read_text().replace("`--timeout`", "--timeout")
    assert dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|$", page, re.MULTILINE)) == KINDS


def test_durations_have_three_digits() -> None:
    told = [format_duration(ns) for ns in (0, 999, 1_250, 12_340, 123_400, 1_500_000, 61_000_000_000)]
    assert told == ["0 ns", "999 ns", "1.25 us", "12.3 us", "123 us", "1.50 ms", "61.0 s"]
