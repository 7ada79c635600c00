"""What a rate is, and how it is written."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esockd_ratelimit import InvalidRate, KeyedTokenBucket, Rate, RateLimitError, TokenBucket


@pytest.mark.parametrize(
    ("text", "per_s", "burst"),
    [
        ("100/s", 100, 100),
        ("100", 100, 100),
        (" 100 / sec ", 100, 100),
        ("6000/min", 100, 100),
        ("1/h", Fraction(1, 3600), 1),
        ("12/day", Fraction(1, 7200), 1),
        ("500/10s", 50, 50),
        ("1/0.5s", 2, 2),
        ("2.5/s burst 10", Fraction(5, 2), 10),
        ("2.5/s", Fraction(5, 2), Fraction(5, 2)),
        ("100/S BURST 1", 100, 1),
        ("0/s burst 7", 0, 7),
    ],
)
def test_a_rate_is_read_exactly(text: str, per_s: int | Fraction, burst: int | Fraction) -> None:
    rate = Rate.parse(text)
    assert (rate.per_s, rate.burst) == (per_s, burst)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "is not a rate"),
        ("fast", "is not a rate"),
        ("-1/s", "is not a rate"),
        ("1e3/s", "is not a rate"),
        ("inf/s", "is not a rate"),
        ("100/s burst", "is not a rate"),
        ("100/s burst 10 20", "is not a rate"),
        ("100/fortnight", "'fortnight' is not a unit"),
        ("100/0s", "an interval is more than 0"),
        ("100/s burst 0.5", "burst is Fraction(1, 2): it takes a number, 1 or more"),
    ],
)
def test_text_that_is_no_rate_is_refused_with_what_is_allowed(text: str, part: str) -> None:
    with pytest.raises(InvalidRate, match=re.escape(part)) as caught:
        Rate.parse(text)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, RateLimitError)


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), -0.5, True, "100/s", None, 1j])
def test_a_number_that_is_no_rate_is_refused(value: float) -> None:
    with pytest.raises(InvalidRate, match=f"^rate is {re.escape(repr(value))}: it takes "):
        Rate(value)


def test_text_in_place_of_a_number_is_pointed_to_parse() -> None:
    with pytest.raises(InvalidRate, match=r"Rate\.parse"):
        Rate("100/s")  # type: ignore[arg-type]


def test_a_float_counts_as_the_decimal_it_prints_as() -> None:
    assert Rate(0.1).per_s == Fraction(1, 10)
    assert Rate(0.3, 1.5).burst == Fraction(3, 2)


def test_the_default_burst_is_one_seconds_worth_and_at_least_1() -> None:
    assert Rate(100).burst == 100
    assert Rate(2.5).burst == Fraction(5, 2)
    assert Rate(0.1).burst == 1
    assert Rate(0).burst == 1


def test_a_burst_given_beside_a_rate_goes_before_its_own() -> None:
    assert Rate.of(Rate(5, 10)) == Rate(5, 10)
    assert Rate.of(Rate(5, 10), 20) == Rate(5, 20)
    assert Rate.of(5, 20) == Rate(5, 20)
    assert Rate.of("5/s burst 10", 20) == Rate(5, 20)


def test_a_text_stands_for_a_rate_wherever_one_is_taken() -> None:
    rate = Rate(Fraction(1, 12))
    assert Rate.of("5/min") == rate
    assert TokenBucket("5/min").rate == KeyedTokenBucket("5/min").rate == rate
    bucket, keyed = TokenBucket(1), KeyedTokenBucket(1)
    bucket.reconfigure("5/min")
    keyed.reconfigure("5/min", 3)
    assert (bucket.rate, keyed.rate) == (rate, Rate(Fraction(1, 12), 3))
    for call in (TokenBucket, KeyedTokenBucket, bucket.reconfigure, keyed.reconfigure):
        with pytest.raises(InvalidRate, match=r"^rate is 'fast': that is not a rate"):
            call("fast")


@pytest.mark.parametrize("text", [None, 5, b"5/s"])
def test_only_text_is_parsed(text: Any) -> None:
    with pytest.raises(InvalidRate, match="it takes text, not"):
        Rate.parse(text)


def test_a_number_too_long_for_python_is_no_rate_and_no_other_error() -> None:
    with pytest.raises(InvalidRate, match="that is not a rate"):
        Rate.parse("9" * 5000)
    assert Rate.parse(str(Rate(5e-324))) == Rate(5e-324)


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (Rate(100), "100/s"),
        (Rate(2.5, 10), "2.5/s burst 10"),
        (Rate(Fraction(1, 60)), "1/min"),
        (Rate(Fraction(1, 7)), "1/7s"),
        (Rate(0, 5), "0/s burst 5"),
    ],
)
def test_a_rate_prints_in_the_smallest_unit_that_needs_no_endless_decimals(rate: Rate, text: str) -> None:
    assert str(rate) == text


@given(
    st.fractions(min_value=0, max_value=10**9, max_denominator=10**6),
    st.none() | st.decimals(min_value=1, max_value=10**6, places=3).map(Fraction),
)
def test_what_a_rate_prints_is_read_back_as_the_same_rate(per_s: Fraction, burst: Fraction | None) -> None:
    rate = Rate(per_s, burst)
    assert Rate.parse(str(rate)).per_s == per_s
    assert Rate.parse(str(rate)).burst == rate.burst
