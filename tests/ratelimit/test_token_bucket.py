"""The token bucket without waiting: what is granted when, to the nanosecond."""

from __future__ import annotations

import copy
import math
import time
from fractions import Fraction

import pytest

from esockd_ratelimit import (
    BurstExceeded,
    InvalidOption,
    InvalidRate,
    InvalidTokens,
    Limiter,
    Rate,
    RateLimitError,
    TokenBucket,
    WaitTooLong,
)
from esockd_ratelimit.testing import FakeClock


def test_a_bucket_starts_full_and_grants_its_burst_at_once() -> None:
    bucket = TokenBucket(10, burst=3, clock=FakeClock())
    assert [bucket.try_acquire() for _ in range(5)] == [True, True, True, False, False]


def test_capacity_1_admits_one() -> None:
    bucket = TokenBucket(1, burst=1, clock=FakeClock())
    assert bucket.try_acquire()
    assert not bucket.try_acquire()


def test_a_third_of_a_second_is_not_rounded() -> None:
    clock = FakeClock()
    bucket = TokenBucket(3, burst=1, clock=clock)
    assert bucket.try_acquire()
    clock.now_ns = 333_333_333
    assert not bucket.try_acquire()
    clock.now_ns = 333_333_334
    assert bucket.try_acquire()
    clock.now_ns = 666_666_667  # a third later than the exact moment before, not than the nanosecond it was used in
    assert not bucket.try_acquire()
    clock.now_ns = 666_666_668
    assert bucket.try_acquire()


def test_a_second_at_three_a_second_gives_exactly_three_however_often_one_asks() -> None:
    clock = FakeClock()
    bucket = TokenBucket(3, clock=clock)
    bucket.try_acquire(3)
    granted = 0
    for _ in range(1000):
        clock.now_ns += 1_000_000
        granted += bucket.try_acquire()
    assert granted == 3


def test_a_refused_request_takes_nothing() -> None:
    bucket = TokenBucket(10, burst=5, clock=FakeClock())
    assert bucket.try_acquire(3)
    assert not bucket.try_acquire(3)
    assert bucket.try_acquire(2)


def test_time_that_runs_backwards_stands_still() -> None:
    clock = FakeClock(10**12)
    bucket = TokenBucket(1, burst=2, clock=clock)
    assert bucket.try_acquire(2)
    clock.advance(1)
    assert bucket.peek() == 1
    clock.advance(-3600)
    assert bucket.peek() == 1
    assert bucket.try_acquire()
    clock.advance(3600)
    assert bucket.peek() == 0
    clock.advance(1)
    assert bucket.peek() == 1


def test_rate_0_is_a_one_off_allowance() -> None:
    clock = FakeClock()
    bucket = TokenBucket(0, burst=2, clock=clock)
    assert bucket.try_acquire()
    assert bucket.wait_time() == 0.0
    assert bucket.try_acquire()
    clock.advance(10**9)
    assert not bucket.try_acquire()
    assert bucket.wait_time() == math.inf


def test_a_request_above_the_burst_is_refused_by_its_own_error() -> None:
    bucket = TokenBucket(10, burst=5, clock=FakeClock())
    for call in (bucket.try_acquire, bucket.wait_time, bucket.reserve):
        with pytest.raises(BurstExceeded, match=r"^n is 6: this bucket never holds more than its burst of 5") as caught:
            call(6)
        assert caught.value.value == 6
        assert caught.value.burst == 5
        assert isinstance(caught.value, ValueError)
    assert bucket.peek() == 5


def test_0_tokens_are_always_granted() -> None:
    bucket = TokenBucket(1, burst=1, clock=FakeClock())
    bucket.reserve()
    bucket.reserve()
    assert bucket.try_acquire(0)
    assert bucket.wait_time(0) == 0.0
    reservation = bucket.reserve(0)
    assert reservation.wait_time() == 0.0
    reservation.cancel()
    assert bucket.wait_time() == 2.0


@pytest.mark.parametrize("n", [-1, 1.5, "1", None])
def test_tokens_are_whole_numbers_from_0_up(n: int) -> None:
    bucket = TokenBucket(10, clock=FakeClock())
    for call in (bucket.try_acquire, bucket.wait_time, bucket.reserve):
        with pytest.raises(InvalidTokens, match=f"^n is {n!r}: it takes a whole number, 0 or more"):
            call(n)
    assert bucket.peek() == 10


def test_wait_time_is_exactly_when_the_tokens_are_there() -> None:
    clock = FakeClock()
    bucket = TokenBucket(Fraction(1, 3), burst=4, clock=clock)
    bucket.try_acquire(4)
    assert bucket.wait_time(2) == 6.0
    clock.advance(6)
    assert bucket.wait_time(2) == 0.0
    assert bucket.try_acquire(2)


def test_peek_is_the_most_that_would_be_granted() -> None:
    clock = FakeClock()
    bucket = TokenBucket(2.5, burst=10, clock=clock)
    bucket.try_acquire(10)
    clock.advance(1)
    assert bucket.peek() == 2
    assert not bucket.try_acquire(3)
    assert bucket.try_acquire(2)


def test_the_default_burst_of_a_fraction_is_kept_exactly() -> None:
    clock = FakeClock()
    bucket = TokenBucket(2.5, clock=clock)
    assert bucket.try_acquire(2)
    assert bucket.wait_time() == 0.2


def test_a_bucket_takes_a_rate_with_its_burst() -> None:
    bucket = TokenBucket(Rate.parse("2.5/s burst 10"), clock=FakeClock())
    assert bucket.rate == Rate(2.5, 10)
    assert bucket.peek() == 10
    assert TokenBucket(Rate(5, 10), 20, FakeClock()).peek() == 20


def test_a_bucket_is_a_limiter() -> None:
    assert isinstance(TokenBucket(1), Limiter)


def test_a_bucket_runs_on_the_monotonic_clock_by_default() -> None:
    bucket = TokenBucket(1_000_000, burst=1)
    assert bucket.try_acquire()
    deadline = time.monotonic() + 10
    while not bucket.try_acquire():
        assert time.monotonic() < deadline


def test_a_clock_that_counts_seconds_is_refused() -> None:
    with pytest.raises(InvalidOption, match=r"^clock: .*time\.monotonic_ns"):
        TokenBucket(1, clock=time.monotonic)  # type: ignore[arg-type]


@pytest.mark.parametrize("burst", [0, 0.5, -1])
def test_a_burst_below_1_is_refused(burst: float) -> None:
    with pytest.raises(InvalidRate, match=f"^burst is {burst}: it takes a number, [01] or more"):
        TokenBucket(10, burst=burst)


def test_a_negative_bound_on_waiters_is_refused() -> None:
    with pytest.raises(InvalidOption, match=r"^max_waiters is -1: it takes a whole number, 0 or more, or None"):
        TokenBucket(10, max_waiters=-1)


def test_a_bucket_prints_what_it_holds() -> None:
    assert repr(TokenBucket(10, 5, FakeClock())) == "<TokenBucket 10/s burst 5, 5 tokens, 0 waiting>"


def test_reservations_queue_and_later_requests_do_not_overtake_them() -> None:
    clock = FakeClock()
    bucket = TokenBucket(1, burst=2, clock=clock)
    waits = [bucket.reserve().wait_time() for _ in range(4)]
    assert waits == [0.0, 0.0, 1.0, 2.0]
    assert bucket.wait_time() == 3.0
    clock.advance(2)
    assert not bucket.try_acquire()
    clock.advance(1)
    assert bucket.try_acquire()


def test_a_reservation_tells_how_long_is_left() -> None:
    clock = FakeClock()
    bucket = TokenBucket(1, burst=1, clock=clock)
    bucket.try_acquire()
    reservation = bucket.reserve()
    assert reservation.tokens == 1
    clock.advance(0.75)
    assert reservation.wait_time() == 0.25
    clock.advance(1)
    assert reservation.wait_time() == 0.0


def test_a_reservation_that_would_take_too_long_is_refused_and_not_charged() -> None:
    bucket = TokenBucket(1, burst=5, clock=FakeClock())
    bucket.try_acquire(5)
    with pytest.raises(WaitTooLong, match=r"5 tokens would take 5 s, longer than the 4\.9 s allowed") as caught:
        bucket.reserve(5, max_wait=4.9)
    assert (caught.value.wait_time, caught.value.max_wait) == (5.0, 4.9)
    assert isinstance(caught.value, RateLimitError)
    assert bucket.reserve(5, max_wait=5).wait_time() == 5.0


def test_a_reservation_that_would_never_come_is_refused() -> None:
    bucket = TokenBucket(0, burst=1, clock=FakeClock())
    bucket.reserve()
    with pytest.raises(WaitTooLong):
        bucket.reserve()


def test_a_cancelled_reservation_gives_everything_back_once() -> None:
    bucket = TokenBucket(1, burst=10, clock=FakeClock())
    reservation = bucket.reserve(7)
    reservation.cancel()
    reservation.cancel()
    assert bucket.peek() == 10


def test_whoever_queues_behind_a_cancelled_reservation_moves_up() -> None:
    bucket = TokenBucket(1, burst=1, clock=FakeClock())
    bucket.try_acquire()
    first, second, third = (bucket.reserve() for _ in range(3))
    second.cancel()
    assert (first.wait_time(), third.wait_time()) == (1.0, 2.0)
    first.cancel()
    assert third.wait_time() == 1.0
    third.cancel()
    assert bucket.wait_time() == 1.0


def test_a_reservation_cancelled_late_lets_no_more_through_than_the_burst() -> None:
    clock = FakeClock()
    bucket = TokenBucket(1, burst=1, clock=clock)
    reservation = bucket.reserve()
    clock.advance(1)
    assert bucket.try_acquire()
    reservation.cancel()
    assert not bucket.try_acquire()


def test_a_reservation_cancelled_before_time_refilled_it_gives_the_rest_back() -> None:
    clock = FakeClock()
    bucket = TokenBucket(1, burst=4, clock=clock)
    reservation = bucket.reserve(4)
    clock.advance(1)
    assert bucket.try_acquire()
    reservation.cancel()
    assert bucket.peek() == 3


def test_reconfigure_keeps_tokens_and_goes_on_at_the_new_rate() -> None:
    clock = FakeClock()
    bucket = TokenBucket(10, burst=10, clock=clock)
    bucket.try_acquire(6)
    bucket.reconfigure(3, 20)
    assert bucket.peek() == 4
    assert bucket.rate == Rate(3, 20)
    clock.advance(Fraction(1, 3))  # type: ignore[arg-type]
    assert bucket.peek() == 4
    clock.now_ns += 1
    assert bucket.peek() == 5


def test_reconfigure_keeps_no_more_tokens_than_the_new_burst_holds() -> None:
    bucket = TokenBucket(10, burst=10, clock=FakeClock())
    bucket.reconfigure(Rate.parse("5/s burst 3"))
    assert bucket.peek() == 3


def test_reconfigure_keeps_fractions_of_tokens_exactly() -> None:
    clock = FakeClock()
    bucket = TokenBucket(3, burst=1, clock=clock)
    bucket.try_acquire()
    clock.now_ns = 1  # 3e-9 tokens
    bucket.reconfigure(Fraction(1, 7), 1)
    bucket.reconfigure(3, 1)
    assert bucket.wait_time() == 0.333333333
    clock.now_ns = 333_333_333
    assert not bucket.try_acquire()
    clock.now_ns = 333_333_334
    assert bucket.try_acquire()


def test_reconfigure_retimes_reservations() -> None:
    clock = FakeClock()
    bucket = TokenBucket(1, burst=1, clock=clock)
    spent = bucket.reserve()
    reservation = bucket.reserve()
    bucket.reconfigure(2, 1)
    assert reservation.wait_time() == 0.5
    spent.cancel()  # of the time before: gives nothing back
    assert reservation.wait_time() == 0.5
    bucket.reconfigure(0, 1)
    assert reservation.wait_time() == math.inf


def test_a_copy_has_the_same_tokens_and_goes_its_own_way() -> None:
    clock = FakeClock()
    bucket = TokenBucket("3/s burst 5", clock=clock)
    bucket.reconfigure("7/s burst 5")
    bucket.try_acquire(4)
    clock.advance(0.01)
    twin = copy.copy(bucket)
    assert (twin.rate, twin.peek(), twin.wait_time(2)) == (bucket.rate, 1, bucket.wait_time(2))
    assert twin.try_acquire()
    assert (twin.peek(), bucket.peek()) == (0, 1)


def test_nobody_waits_in_a_copy() -> None:
    bucket = TokenBucket(1, clock=FakeClock())
    bucket.reserve()
    promised = bucket.reserve()
    twin = copy.copy(bucket)
    assert twin.wait_time() == 2  # what was promised is spent
    promised.cancel()
    assert (twin.wait_time(), bucket.wait_time()) == (2, 1)


def test_a_refused_reconfiguration_changes_nothing() -> None:
    bucket = TokenBucket(10, burst=5, clock=FakeClock())
    with pytest.raises(InvalidRate):
        bucket.reconfigure(-1)
    assert bucket.rate == Rate(10, 5)
