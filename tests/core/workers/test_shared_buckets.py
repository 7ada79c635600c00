"""Buckets in shared memory against those of `esockd_ratelimit`, and what a change of the rate leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from esockd_core import InvalidOption
from esockd_core.workers._buckets import SharedBucket, shared_units
from esockd_core.workers._memory import SharedMemory
from esockd_core.workers._sources import SharedSources
from esockd_ratelimit import KeyedTokenBucket, Rate, TokenBucket

if TYPE_CHECKING:
    from collections.abc import Iterator

    from esockd_core._admission.units import Units
    from esockd_core.workers._memory import ListenerMemory

RATES = st.sampled_from(["1/s", "3/s burst 7", "1000/s burst 5", "7/min", "333.3/s burst 2", "1/h burst 4"])
ROUNDING_S = 1e-6  # of several changes of the rate, and always to the later side
STEPS = st.lists(
    st.one_of(
        st.integers(0, 2 * 10**9).map(lambda ns: ("wait", ns)),
        st.sampled_from(["10.0.0.1", "10.0.0.2", "2001:db8::1"]).map(lambda source: ("take", source)),
        RATES.map(lambda rate: ("rate", rate)),
    ),
    max_size=60,
)


class Clock:
    def __init__(self) -> None:
        self.now_ns = 5 * 10**9

    def __call__(self) -> int:
        return self.now_ns


@pytest.fixture(scope="module")
def shared() -> Iterator[SharedMemory]:
    memory = SharedMemory.create()
    yield memory
    memory.close()


def wiped(shared: SharedMemory) -> ListenerMemory:
    memory = shared.live
    memory.begin_as(SharedMemory.create().live)  # which is as at first
    return memory


def units(rate: str) -> Units:
    return shared_units(Rate.of(rate), "max_conn_rate")


@given(first=RATES, steps=STEPS)
def test_a_shared_bucket_grants_what_a_bucket_of_one_process_grants(
    shared: SharedMemory, first: str, steps: list[tuple[str, int | str]]
) -> None:
    clock, memory = Clock(), wiped(shared)
    model = TokenBucket(first, clock=clock)
    buckets = [SharedBucket(memory, clock) for _ in range(2)]
    buckets[0].configure(units(first))
    for number, (what, value) in enumerate(steps):
        match what, value:
            case "wait", int():
                clock.now_ns += value
            case "rate", str():
                model.reconfigure(value)
                buckets[0].configure(units(value))
            case _:
                bucket = buckets[number % 2]
                wait_s = bucket.wait_time()
                assert wait_s == pytest.approx(model.wait_time(), abs=ROUNDING_S)
                if bucket.try_acquire() != model.try_acquire():
                    assert 0 < wait_s < ROUNDING_S
                    return


@pytest.fixture(scope="module")
def _remembers_full_buckets() -> Iterator[None]:
    """Let keyed buckets forget no key: a larger burst later finds it new, where shared sources still know it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("esockd_ratelimit._keyed.FORGET_PER_NEW_KEY", 0)
        yield


@pytest.mark.usefixtures("_remembers_full_buckets")
@given(first=RATES, steps=STEPS)
@example(
    first="3/s burst 7",
    steps=[
        ("take", "10.0.0.2"),
        ("rate", "1/s"),
        ("take", "10.0.0.1"),
        ("rate", "3/s burst 7"),
        ("take", "10.0.0.2"),
        ("take", "10.0.0.2"),
    ],
)
def test_shared_sources_grant_what_keyed_buckets_of_one_process_grant(
    shared: SharedMemory, first: str, steps: list[tuple[str, int | str]]
) -> None:
    clock, memory = Clock(), wiped(shared)
    model = KeyedTokenBucket(first, clock=clock, key=lambda key: key)
    sources = [SharedSources(memory, slot, clock) for slot in range(2)]
    sources[0].configure(units(first))
    for number, (what, value) in enumerate(steps):
        match what, value:
            case "wait", int():
                clock.now_ns += value
            case "rate", str():
                model.reconfigure(value)
                sources[0].configure(units(value))
            case _:
                each = sources[number % 2]
                wait_s = each.wait_time(value)
                assert wait_s == pytest.approx(model.wait_time(value), abs=ROUNDING_S)
                if each.try_acquire(value) != model.try_acquire(value):
                    assert 0 < wait_s < ROUNDING_S
                    return


def test_a_token_that_is_given_back_can_be_taken_again(shared: SharedMemory) -> None:
    clock, memory = Clock(), wiped(shared)
    bucket = SharedBucket(memory, clock)
    bucket.configure(units("1/h burst 2"))
    assert [bucket.try_acquire() for _ in range(3)] == [True, True, False]
    bucket.give_back()
    assert [bucket.try_acquire() for _ in range(2)] == [True, False]
    bucket.fill()
    assert [bucket.try_acquire() for _ in range(3)] == [True, True, False]


def test_the_places_of_a_source_are_those_of_all_slots(shared: SharedMemory) -> None:
    memory = wiped(shared)
    for slot in range(3):
        memory.whole.use_slot(slot)
    sources = [SharedSources(memory, slot) for slot in range(3)]
    for each in sources:
        assert each.take("10.0.0.1")
    assert [each.get("10.0.0.1") for each in sources] == [3, 3, 3]
    sources[0].release("10.0.0.1")
    assert sources[1].get("10.0.0.1") == 2
    sources[2].forget(1)
    assert sources[1].get("10.0.0.1") == 1
    assert sources[1].get("10.0.0.2") == 0
    sources[1].release("10.0.0.2")
    assert sources[1].get("10.0.0.2") == 0


def test_a_flood_of_sources_takes_no_place_of_one_that_is_counted_or_limited(shared: SharedMemory) -> None:
    clock, memory = Clock(), wiped(shared)
    memory.whole.use_slot(0)
    sources = SharedSources(memory, 0, clock)
    sources.configure(units("1/h burst 1"))
    assert sources.take("counted")
    assert sources.try_acquire("limited")
    clock.now_ns += 10**9
    for number in range(3_000):
        sources.take(str(number))
        sources.release(str(number))
    assert sources.get("counted") == 1
    assert not sources.try_acquire("limited")


def test_a_source_beyond_the_room_of_its_set_is_refused(shared: SharedMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esockd_core.workers._sources.SETS", 1)
    memory = wiped(shared)
    memory.whole.use_slot(0)
    sources = SharedSources(memory, 0)
    assert [sources.take(str(number)) for number in range(70)] == [True] * 64 + [False] * 6
    sources.release("7")
    assert sources.take("another")


def test_a_rate_that_is_too_fine_a_fraction_is_refused() -> None:
    with pytest.raises(InvalidOption, match="max_conn_rate"):
        shared_units(Rate(10**40 + 1), "max_conn_rate")
