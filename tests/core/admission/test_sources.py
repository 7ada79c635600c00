"""The limits of single sources, against a keyed bucket and a dictionary of counts."""

from __future__ import annotations

from collections import Counter
from heapq import heapreplace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esockd_core import Refused
from esockd_core._admission.sources import Sources
from esockd_ratelimit import KeyedTokenBucket, Rate, source_key
from esockd_ratelimit.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from esockd_core._admission.sources import Source

HOSTS = [
    "192.0.2.1",
    "192.0.2.2",
    "::ffff:192.0.2.2",
    "2001:db8::1",
    "2001:db8::2",
    "2001:db8:0:1::1",
    "unix:",
    "fe80::1%2",
]
OTHERWISE_REFUSED = HOSTS[0]  # after it has spent its token, as by the common bucket
RATES = ["1/s", "1/s burst 3", "2/s burst 10", "3/min burst 2", "0/s burst 2", "7/h"]
LIMITS = st.tuples(st.none() | st.integers(1, 3), st.none() | st.sampled_from(RATES))


class Pair:
    """`Sources`, and beside it the two tables that it stands for."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.sources = Sources(self.clock)
        self.there: list[Source] = []
        self.most: int | None = None
        self.buckets: KeyedTokenBucket | None = None
        self.rounded_tokens = 0.0  # the most by which changes of the rate may have rounded; see `FINER`
        self.open: Counter[Hashable] = Counter()

    def limit(self, most: int | None, rate: str | None) -> None:
        parsed = None if rate is None else Rate.parse(rate)
        if self.buckets is not None:  # a full bucket gets the tokens of a larger burst only if it was forgotten before
            self.buckets.forget_full()
            self.rounded_tokens += 1e-6
            self.sources._forget(self.clock() * self.sources._per_ns, len(self.sources._heap))
        self.sources.configure(most, parsed)
        self.most = most
        if parsed is None:
            self.buckets = None
        elif self.buckets is None:
            self.buckets = KeyedTokenBucket(parsed, clock=self.clock)
        else:
            self.buckets.reconfigure(parsed)

    def come(self, host: str) -> None:
        key = source_key(host)
        if self.most is not None and self.open[key] >= self.most:
            stage: Refused | None = Refused.MAX_LIMIT
        else:
            stage = None if self.buckets is None or self.buckets.try_acquire(host) else Refused.RATE_LIMITED
        source = self.sources.spend(host)
        assert (None if source is not None else self.sources.denial(host).stage) == stage
        if source is not None and host != OTHERWISE_REFUSED:
            source.open += 1
            self._is_there(source)

    def take(self, host: str) -> None:
        self._is_there(self.sources.take(host))

    def _is_there(self, source: Source) -> None:
        self.there.append(source)
        self.open[source.key] += 1

    def go(self, which: int) -> None:
        if self.there:
            source = self.there.pop(which % len(self.there))
            self.sources.release(source)
            self.open[source.key] -= 1

    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def copy(self, _: None) -> None:
        twins = self.sources.copy()
        for host in HOSTS:
            assert twins.wait_time(source_key(host)) == self.sources.wait_time(source_key(host))
            assert twins.open_connections(source_key(host)) == 0

    def compare(self) -> None:
        for host in HOSTS:
            key = source_key(host)
            assert self.sources.open_connections(key) == self.open[key]
            if self.buckets is not None:
                rate = float(self.buckets.rate.per_s)
                rounded_s = 2e-9 + (self.rounded_tokens / rate if rate else 0)
                assert self.sources.wait_time(key) == pytest.approx(self.buckets.wait_time(host), abs=rounded_s)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just(Pair.come), st.sampled_from(HOSTS)),
        st.tuples(st.just(Pair.come), st.sampled_from(HOSTS[:3])),
        st.tuples(st.just(Pair.take), st.sampled_from(HOSTS)),
        st.tuples(st.just(Pair.go), st.integers(0, 30)),
        st.tuples(st.just(Pair.wait), st.sampled_from([0.25, 1, 10, 1000])),
        st.tuples(st.just(Pair.copy), st.none()),
        st.tuples(st.just(Pair.limit), LIMITS).map(lambda step: (lambda pair, limits: pair.limit(*limits), step[1])),
    ),
    max_size=80,
)


@given(limits=LIMITS, steps=STEPS)
def test_sources_judge_as_a_keyed_bucket_and_a_count_do(
    limits: tuple[int | None, str | None], steps: list[tuple[Callable[[Pair, Any], None], Any]]
) -> None:
    pair = Pair()
    pair.limit(*limits)
    for step, given_to_it in steps:
        step(pair, given_to_it)
        pair.compare()


def test_a_new_source_finds_no_room_while_as_many_as_fit_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esockd_core._admission.sources.MOST_LIMITED", 3)
    clock = FakeClock()
    sources = Sources(clock)
    sources.configure(None, Rate(1))
    for number in range(3):
        assert sources.spend(f"192.0.2.{number}")
        clock.advance(0.25)
    assert sources.spend("192.0.2.9") is None
    assert sources.denial("192.0.2.9").stage is Refused.RATE_LIMITED
    assert sources.wait_time("192.0.2.9") == 0.25
    clock.advance(0.25)
    assert sources.spend("192.0.2.9")
    assert sources.spend("192.0.2.0") is None
    assert len(sources._by_key) == 3


def test_sources_with_connections_take_no_room_from_those_that_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esockd_core._admission.sources.MOST_LIMITED", 3)
    clock = FakeClock()
    sources = Sources(clock)
    sources.configure(5, Rate(1))
    for number in range(10):
        source = sources.spend(f"192.0.2.{number}")
        assert source is not None
        source.open += 1
        clock.advance(1)
    assert [sources.open_connections(f"192.0.2.{number}") for number in range(10)] == [1] * 10


@pytest.mark.parametrize("rate", [None, Rate(1)], ids=["count", "rate"])
def test_a_flood_of_sources_that_left_leaves_no_more_than_are_kept(
    rate: Rate | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("esockd_core._admission.sources.KEPT", 100)
    clock = FakeClock()
    sources = Sources(clock)
    sources.configure(5, rate)
    for number in range(2000):
        source = sources.spend(f"10.0.{number // 256}.{number % 256}")
        assert source is not None
        source.open += 1
        sources.release(source)
        clock.advance(1)
    assert len(sources._by_key) == len(sources._heap) <= 100


def test_a_new_source_pays_for_a_bounded_part_of_a_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of those that fill the table has spent again, so that its moment in the heap is old."""
    monkeypatch.setattr("esockd_core._admission.sources.MOST_LIMITED", 3000)
    clock = FakeClock()
    sources = Sources(clock)
    sources.configure(None, Rate(1, 10))
    for _ in range(2):
        for number in range(3000):
            assert sources.spend(f"10.0.{number // 256}.{number % 256}")
    clock.advance(1)
    looked_at = 0

    def count(*arguments: Any) -> Any:
        nonlocal looked_at
        looked_at += 1
        return heapreplace(*arguments)

    monkeypatch.setattr("esockd_core._admission.sources.heapreplace", count)
    assert sources.spend("192.0.2.1") is None
    assert 1000 < looked_at < 1100


def test_a_listener_reads_the_clock_of_the_system() -> None:
    sources = Sources()
    sources.configure(None, Rate.parse("1/h"))
    assert sources.spend("192.0.2.1")
    assert sources.spend("192.0.2.1") is None
    assert 0 < sources.wait_time("192.0.2.1") <= 3600
