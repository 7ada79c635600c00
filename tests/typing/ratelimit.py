# pyright: strict, reportUnnecessaryTypeIgnoreComment=true
"""Typed usage of esockd_ratelimit: checked by mypy and pyright, never run."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, assert_type

from esockd_ratelimit import (
    CompositeLimiter,
    KeyedLimiter,
    KeyedTokenBucket,
    Limiter,
    Rate,
    Reservation,
    TokenBucket,
    Verdict,
)
from esockd_ratelimit.listener import RateLimitedListener
from esockd_ratelimit.redis import KeyedRedisTokenBucket, RedisTokenBucket

if TYPE_CHECKING:
    from anyio.abc import Listener, SocketStream


def rates_come_as_numbers_fractions_and_rates() -> None:
    TokenBucket(100)
    TokenBucket(0.5, burst=10)
    TokenBucket(Fraction(1, 3))
    TokenBucket(Rate.parse("100/s"), clock=lambda: 0)
    TokenBucket("100/s")
    KeyedTokenBucket("5/min burst 10").reconfigure("6/min")
    TokenBucket(b"100/s")  # type: ignore[arg-type]


async def tokens_are_taken_promised_or_awaited(bucket: TokenBucket) -> None:
    assert_type(bucket.try_acquire(), bool)
    assert_type(bucket.wait_time(3), float)
    assert_type(bucket.reserve(2, max_wait=1.5), Reservation)
    await bucket.acquire()
    bucket.acquire()  # type: ignore[unused-coroutine]


def a_bucket_is_a_limiter(bucket: TokenBucket) -> Limiter:
    return bucket


def a_composite_is_a_limiter_too(bucket: TokenBucket, sources: KeyedTokenBucket) -> Limiter:
    composite = CompositeLimiter({"all": bucket, "source": sources})
    assert_type(composite.decide(key="192.0.2.1"), Verdict)
    assert_type(composite.try_acquire(2, key="192.0.2.1"), bool)
    CompositeLimiter({"all": 3})  # type: ignore[dict-item]
    return composite


def a_keyed_bucket_is_a_keyed_limiter(sources: KeyedTokenBucket) -> KeyedLimiter:
    KeyedTokenBucket(1, when_full="panic")  # type: ignore[arg-type]
    return sources


async def a_shared_bucket_is_a_limiter(url: str) -> Limiter:
    async with RedisTokenBucket(url, "name", 100, when_away="local") as bucket:
        assert_type(await bucket.take(), bool)
        assert_type(bucket.try_acquire(), bool)
        return bucket


async def shared_buckets_have_keys(url: str) -> None:
    users = KeyedRedisTokenBucket(url, "users", "5/min", when_away="open")
    assert_type(await users.take("alice"), bool)
    await users.acquire("alice", 2)
    KeyedRedisTokenBucket(url, "users", 1, when_away="panic")  # type: ignore[arg-type]


def a_listener_takes_limiters_and_rates(listener: Listener[SocketStream], bucket: TokenBucket) -> None:
    RateLimitedListener(listener, bucket, source_limiter=KeyedTokenBucket(5))
    RateLimitedListener(listener, "500/s", source_limiter="5/s burst 10")
    RateLimitedListener(listener, object())  # type: ignore[arg-type]
