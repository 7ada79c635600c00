"""The script on the server: exact to the microsecond, with expiry that never forgets early."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from esockd_ratelimit import InvalidRate, Rate
from esockd_ratelimit.redis._script import SCRIPT, script_units

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.redis_server import RedisServer

US = 10**6
START_US = 1_900_000_000 * US
TIMED_SCRIPT = SCRIPT.replace("redis.call('TIME')", "{ARGV[6], ARGV[7]}")  # the server's time, by choice
NAMES = itertools.count()


@pytest.fixture(scope="module")
def client(shared_redis: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(shared_redis.url) as connected:
        yield connected


class Bucket:
    """A fresh key on the server, under a clock that the test moves."""

    def __init__(self, client: redis.Redis, rate: Rate) -> None:
        self.client, self.units = client, script_units(rate)
        self.key = f"script:{next(NAMES)}"
        self.now_us = START_US
        self.script = client.register_script(TIMED_SCRIPT)

    def run(self, least: int, most: int | None = None) -> tuple[int, int]:
        arguments = [*self.units, least, least if most is None else most, *divmod(self.now_us, US)]
        answer: Any = self.script(keys=[self.key], args=arguments)
        taken, wait_us = answer
        return taken, wait_us

    def expires_in_ms(self) -> Any:
        return self.client.pttl(self.key)


RATES = st.one_of(
    st.integers(0, 5),
    st.fractions(min_value=0, max_value=100, max_denominator=60),
    st.sampled_from([0.1, 2.5, 10**6, 3_333_333]),
)


@given(
    rate=RATES,
    burst=st.sampled_from([1, 3, 7, 2.5]),
    calls=st.lists(
        st.tuples(st.integers(1, 7), st.integers(0, 7), st.integers(0, 2 * US) | st.integers(0, 3)), max_size=25
    ),
)
def test_the_script_equals_a_fraction_model(
    client: redis.Redis, rate: float, burst: float, calls: list[tuple[int, int, int]]
) -> None:
    exact = Rate(rate, burst)
    bucket, held = Bucket(client, exact), exact.burst
    for least, extra, step_us in calls:
        bucket.now_us += step_us
        held = min(exact.burst, held + exact.per_s * Fraction(step_us, US))
        taken, wait_us = bucket.run(least, least + extra)
        if held >= least:
            assert (taken, wait_us) == (min(math.floor(held), least + extra), 0)
        else:
            missing = least - held
            assert (taken, wait_us) == (0, math.ceil(missing / exact.per_s * US) if exact.per_s else -1)
        held -= taken
        if taken and exact.per_s:
            full_in_ms = (exact.burst - held) / exact.per_s * 1000
            assert full_in_ms + 900 <= bucket.expires_in_ms() <= full_in_ms + 1001


def test_a_key_is_gone_only_after_its_bucket_is_full(client: redis.Redis) -> None:
    bucket = Bucket(client, Rate(1, 100))
    bucket.run(100)
    assert 100_000 < bucket.expires_in_ms() <= 101_000


def test_an_allowance_without_refill_never_expires(client: redis.Redis) -> None:
    bucket = Bucket(client, Rate(1, 5))
    bucket.run(1)
    bucket.units = script_units(Rate(0, 5))
    bucket.run(1)
    assert bucket.expires_in_ms() == -1


def test_a_refused_request_writes_nothing(client: redis.Redis) -> None:
    bucket = Bucket(client, Rate(1, 1))
    bucket.run(1)
    before = client.dump(bucket.key)
    assert bucket.run(1)[0] == 0
    assert client.dump(bucket.key) == before


def test_a_clock_that_was_set_back_does_not_stop_the_bucket(client: redis.Redis) -> None:
    bucket = Bucket(client, Rate(1, 2))
    assert bucket.run(2) == (2, 0)
    bucket.now_us -= 3600 * US
    assert bucket.run(1) == (0, US)
    bucket.now_us += US
    assert bucket.run(1) == (1, 0)
    assert bucket.run(1) == (0, US)


def test_tokens_that_are_given_back_fill_no_more_than_the_burst(client: redis.Redis) -> None:
    bucket = Bucket(client, Rate(0, 5))
    assert bucket.run(5) == (5, 0)
    assert bucket.run(-3) == (-3, 0)
    assert bucket.run(3) == (3, 0)
    assert bucket.run(-9) == (-9, 0)
    assert bucket.run(1, 99) == (5, 0)


def test_a_change_of_rate_keeps_the_tokens(client: redis.Redis) -> None:
    bucket = Bucket(client, Rate(1, 10))
    bucket.run(4)
    bucket.units = script_units(Rate(Fraction(1, 3), 10))
    assert bucket.run(1, 99) == (6, 0)
    assert bucket.run(1) == (0, 3 * US)


def test_numbers_too_large_to_be_exact_in_a_script_are_refused() -> None:
    assert script_units(Rate(10**9)) == (10**9, US, 10**15)
    with pytest.raises(InvalidRate, match=r"2\*\*53"):
        script_units(Rate(10**10))


def test_a_float_that_the_script_cannot_hold_is_answered_with_two_exact_ways_to_write_it() -> None:
    with pytest.raises(InvalidRate, match="above 2") as raised:
        script_units(Rate(5 / 60))
    assert raised.value.hint is not None
    assert 'Rate.parse("5/min")' in raised.value.hint
    assert "Fraction(5, 60)" in raised.value.hint
    assert script_units(Rate.parse("5/min")) == script_units(Rate(Fraction(5, 60)))
