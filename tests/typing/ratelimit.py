# pyright: strict, reportUnnecessaryTypeIgnoreComment=true
"""Typed usage of esockd_ratelimit: checked by mypy and pyright, never run."""

from __future__ import annotations

from fractions import Fraction
from typing import assert_type

from esockd_ratelimit import Limiter, Rate, Reservation, TokenBucket


def rates_come_as_numbers_fractions_and_rates() -> None:
    TokenBucket(100)
    TokenBucket(0.5, burst=10)
    TokenBucket(Fraction(1, 3))
    TokenBucket(Rate.parse("100/s"), clock=lambda: 0)
    TokenBucket("100/s")  # type: ignore[arg-type]


async def tokens_are_taken_promised_or_awaited(bucket: TokenBucket) -> None:
    assert_type(bucket.try_acquire(), bool)
    assert_type(bucket.wait_time(3), float)
    assert_type(bucket.reserve(2, max_wait=1.5), Reservation)
    await bucket.acquire()
    bucket.acquire()  # type: ignore[unused-coroutine]


def a_bucket_is_a_limiter(bucket: TokenBucket) -> Limiter:
    return bucket
