"""A bucket a key: sources, the bound on memory, and what is forgotten."""

from __future__ import annotations

import copy
import math
import tracemalloc
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esockd_ratelimit import (
    BadValueError,
    BurstExceeded,
    InvalidOption,
    InvalidRate,
    InvalidTokens,
    KeyedLimiter,
    KeyedTokenBucket,
    Rate,
    source_key,
)
from esockd_ratelimit.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Hashable


def test_each_key_has_its_own_tokens() -> None:
    buckets = KeyedTokenBucket(1, 2, FakeClock())
    assert [buckets.try_acquire("192.0.2.1") for _ in range(3)] == [True, True, False]
    assert buckets.try_acquire("192.0.2.2", 2)
    assert buckets.key_count == 2


def test_a_copy_has_the_same_tokens_and_goes_its_own_way() -> None:
    clock = FakeClock()
    buckets = KeyedTokenBucket(1, 2, clock, max_keys=3, when_full="share")
    for key, count in (("a", 1), ("b", 2), ("c", 1), ("too many", 1)):
        assert buckets.try_acquire(key, count)
    clock.advance(0.5)
    twin = copy.copy(buckets)
    assert [twin.wait_time(key) for key in "abc"] == [buckets.wait_time(key) for key in "abc"]
    assert twin.try_acquire("a")
    assert [twin.try_acquire("more"), twin.try_acquire("more")] == [True, False]  # of the one that they share
    clock.advance(0.5)
    assert buckets.try_acquire("a", 2)
    assert not twin.try_acquire("a", 2)
    clock.advance(10)
    assert (twin.forget_full(), buckets.key_count) == (0, 3)


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:0:1::1", bytes.fromhex("20010db800000001")),
        ("2001:DB8:0:1:ffff:ffff:ffff:ffff", bytes.fromhex("20010db800000001")),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", bytes.fromhex("fe80000000000000")),
        ("user:7", "user:7"),
        ("user:\0", "user:\0"),
        ("user:\udc80", "user:\udc80"),
        (("tenant", 3), ("tenant", 3)),
        (None, None),
    ],
)
def test_a_source_is_an_ipv4_address_or_an_ipv6_64(address: Hashable, key: Hashable) -> None:
    assert source_key(address) == key


def test_addresses_of_one_ipv6_64_share_a_bucket() -> None:
    buckets = KeyedTokenBucket(1, 2, FakeClock())
    assert buckets.try_acquire("2001:db8::1")
    assert buckets.try_acquire("2001:db8::2")
    assert not buckets.try_acquire("2001:db8::3")
    assert buckets.try_acquire("2001:db8:0:1::1")


def test_the_key_function_can_be_another() -> None:
    buckets = KeyedTokenBucket(1, 1, FakeClock(), key=lambda key: str(key)[0])
    assert buckets.try_acquire("apple")
    assert not buckets.try_acquire("avocado")


def test_wait_time_is_exactly_when_the_tokens_of_the_key_are_there() -> None:
    clock = FakeClock()
    buckets = KeyedTokenBucket(Fraction(1, 3), 2, clock)
    assert buckets.wait_time("a", 2) == 0.0
    buckets.try_acquire("a", 2)
    assert buckets.wait_time("a") == 3.0
    clock.now_ns = 3 * 10**9 - 1
    assert not buckets.try_acquire("a")
    clock.now_ns += 1
    assert buckets.try_acquire("a")


def test_0_tokens_are_granted_and_leave_no_trace() -> None:
    buckets = KeyedTokenBucket(1, 1, FakeClock())
    assert buckets.try_acquire("a", 0)
    assert buckets.wait_time("a", 0) == 0.0
    assert buckets.key_count == 0


def test_impossible_requests_are_refused_by_their_own_errors() -> None:
    buckets = KeyedTokenBucket(1, 5, FakeClock())
    for call in (buckets.try_acquire, buckets.wait_time):
        with pytest.raises(BurstExceeded):
            call("a", 6)
        with pytest.raises(InvalidTokens):
            call("a", -1)
    assert buckets.key_count == 0


def test_a_keyed_bucket_is_a_keyed_limiter() -> None:
    buckets = KeyedTokenBucket(Rate.parse("5/min burst 2"))
    assert isinstance(buckets, KeyedLimiter)
    assert buckets.rate == Rate(Fraction(1, 12), 2)


@pytest.mark.parametrize(
    ("option", "value", "error"),
    [
        ("max_keys", 0, InvalidOption),
        ("max_keys", True, InvalidOption),
        ("max_waiters", 1.5, InvalidOption),
        ("when_full", "panic", InvalidOption),
        ("burst", 0, InvalidRate),
    ],
)
def test_options_out_of_range_are_refused(option: str, value: object, error: type[BadValueError]) -> None:
    with pytest.raises(error) as raised:
        KeyedTokenBucket(1, **{option: value})  # type: ignore[arg-type]
    assert (raised.value.option, raised.value.value) == (option, value)


def test_only_full_buckets_are_forgotten() -> None:
    clock = FakeClock()
    buckets = KeyedTokenBucket(1, 10, clock)
    buckets.try_acquire("short", 1)
    buckets.try_acquire("long", 5)
    clock.advance(1)
    assert buckets.forget_full() == 1
    assert buckets.wait_time("long", 10) == 4.0
    clock.advance(4)
    assert buckets.forget_full() == 0


def test_new_keys_clear_away_the_full_ones() -> None:
    clock = FakeClock()
    buckets = KeyedTokenBucket(1, 1, clock)
    for number in range(1000):
        buckets.try_acquire(number)
    clock.advance(1)
    for number in range(1000, 1150):
        buckets.try_acquire(number)
    assert buckets.key_count == 150


def test_a_key_that_stays_busy_is_kept() -> None:
    clock = FakeClock()
    buckets = KeyedTokenBucket(1, 3, clock)
    for number in range(100):
        buckets.try_acquire("busy", 2 if number == 0 else 1)
        buckets.try_acquire(number)
        assert buckets.wait_time("busy", 3) == 2.0
        clock.advance(1)
    assert buckets.key_count <= 2


def test_a_limited_key_is_never_pushed_out_by_new_ones() -> None:
    buckets = KeyedTokenBucket(1, 1, FakeClock(), max_keys=10)
    assert buckets.try_acquire("limited")
    for number in range(1000):
        assert buckets.try_acquire(number) is (number < 9)
        assert not buckets.try_acquire("limited")
    assert buckets.key_count == 10


def test_a_full_table_tells_when_the_first_key_is_free() -> None:
    clock = FakeClock()
    buckets = KeyedTokenBucket(1, 4, clock, max_keys=2)
    buckets.try_acquire("a", 4)
    buckets.try_acquire("b", 3)
    assert not buckets.try_acquire("c")
    assert buckets.wait_time("c") == 3.0
    clock.advance(3)
    assert buckets.wait_time("c") == 0.0
    assert buckets.try_acquire("c")


def test_a_full_table_finds_room_as_soon_as_one_bucket_is_full_however_many_are_not() -> None:
    clock = FakeClock()
    buckets = KeyedTokenBucket(1, 10, clock, max_keys=100)
    for number in range(100):
        buckets.try_acquire(number)
    for number in range(99):
        buckets.try_acquire(number, 9)
    clock.advance(1)
    assert buckets.try_acquire("new")
    assert buckets.key_count == 100


def test_at_rate_0_a_full_table_stays_full() -> None:
    buckets = KeyedTokenBucket(0, 1, FakeClock(), max_keys=1)
    assert buckets.try_acquire("a")
    assert not buckets.try_acquire("b")
    assert buckets.wait_time("b") == math.inf


def test_a_full_table_can_admit_new_keys_without_a_limit() -> None:
    buckets = KeyedTokenBucket(1, 1, FakeClock(), max_keys=1, when_full="admit")
    buckets.try_acquire("a")
    assert all(buckets.try_acquire("b") for _ in range(10))
    assert buckets.wait_time("b") == 0.0
    assert not buckets.try_acquire("a")
    assert buckets.key_count == 1


def test_a_full_table_can_let_new_keys_share_one_bucket() -> None:
    clock = FakeClock()
    buckets = KeyedTokenBucket(1, 2, clock, max_keys=1, when_full="share")
    buckets.try_acquire("a", 2)
    assert buckets.try_acquire("b")
    assert buckets.try_acquire("c")
    assert not buckets.try_acquire("d")
    assert buckets.wait_time("d") == 1.0


def test_a_key_costs_less_than_300_bytes() -> None:
    buckets = KeyedTokenBucket(1, 1, FakeClock(10**15), max_keys=20_000)
    keys = [f"10.0.{number >> 8}.{number & 255}" for number in range(20_000)]
    tracemalloc.start()
    try:
        for key in keys:
            buckets.try_acquire(key)
        bytes_a_key = tracemalloc.get_traced_memory()[0] / buckets.key_count
    finally:
        tracemalloc.stop()
    assert 0 < bytes_a_key < 300


@given(
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.integers(1, 3), st.one_of(st.just(0), st.integers(-(10**9), 2 * 10**9)))
    ),
    st.sampled_from([1, 3, Fraction(2, 7), 0]),
    st.integers(1, 5),
)
def test_every_key_equals_a_fraction_model_and_only_full_keys_are_forgotten(
    calls: list[tuple[str, int, int]], rate: Fraction, max_keys: int
) -> None:
    clock = FakeClock()
    buckets = KeyedTokenBucket(rate, 3, clock, max_keys=max_keys)
    tokens: dict[str, Fraction] = {}
    latest_ns = 0
    for key, n, step_ns in calls:
        clock.now_ns += step_ns
        passed_ns = max(clock.now_ns - latest_ns, 0)
        latest_ns += passed_ns
        refilled = {known: held + rate * Fraction(passed_ns, 10**9) for known, held in tokens.items()}
        tokens = {known: held for known, held in refilled.items() if held < 3}
        room = key in tokens or len(tokens) < max_keys
        granted = room and tokens.get(key, Fraction(3)) >= n
        assert buckets.try_acquire(key, n) is granted
        if granted:
            tokens[key] = tokens.get(key, Fraction(3)) - n
        assert len(tokens) <= buckets.key_count <= max_keys
        for known, held in tokens.items():
            missing = (3 - held) / rate * 10**9 if rate else math.inf
            assert buckets.wait_time(known, 3) == (math.ceil(missing) / 1e9 if rate else math.inf)


def test_reconfigure_keeps_the_tokens_of_every_key() -> None:
    clock = FakeClock(10**12)
    buckets = KeyedTokenBucket(1, 10, clock)
    buckets.try_acquire("a", 9)
    buckets.try_acquire("b", 2)
    buckets.reconfigure(Fraction(1, 3), 5)
    assert buckets.rate == Rate(Fraction(1, 3), 5)
    assert buckets.wait_time("a", 5) == 12.0
    assert buckets.wait_time("b", 5) == 0.0
    assert buckets.forget_full() == 1
    clock.advance(12)
    assert buckets.forget_full() == 0


def test_reconfigure_keeps_fractions_of_tokens_exactly() -> None:
    clock = FakeClock()
    buckets = KeyedTokenBucket(3, 1, clock)
    buckets.try_acquire("a")
    clock.now_ns = 1
    buckets.reconfigure(Fraction(1, 7), 1)
    buckets.reconfigure(3, 1)
    assert buckets.wait_time("a") == 0.333333333
    clock.now_ns = 333_333_333
    assert not buckets.try_acquire("a")
    clock.now_ns = 333_333_334
    assert buckets.try_acquire("a")


def test_a_larger_burst_fills_up_for_known_keys_and_is_full_for_new_ones() -> None:
    buckets = KeyedTokenBucket(1, 2, FakeClock())
    buckets.try_acquire("a", 2)
    buckets.reconfigure(1, 5)
    assert buckets.wait_time("a", 5) == 5.0
    assert buckets.wait_time("b", 5) == 0.0


def test_a_refused_reconfiguration_of_keys_changes_nothing() -> None:
    buckets = KeyedTokenBucket(1, 2, FakeClock())
    with pytest.raises(InvalidRate):
        buckets.reconfigure(1, 0)
    assert buckets.rate == Rate(1, 2)
