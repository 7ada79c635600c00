"""Exact token buckets: alone, keyed, composed and shared."""

from ._bucket import Reservation, TokenBucket
from ._composite import CompositeLimiter, Verdict
from ._errors import (
    BadValueError,
    BurstExceeded,
    InvalidOption,
    InvalidRate,
    InvalidTokens,
    QueueFull,
    RateLimitError,
    TooManyKeys,
    WaitTooLong,
)
from ._keyed import KeyedTokenBucket, source_key
from ._protocol import KeyedLimiter, Limiter
from ._rate import Rate, RateLike

__all__ = [
    "BadValueError",
    "BurstExceeded",
    "CompositeLimiter",
    "InvalidOption",
    "InvalidRate",
    "InvalidTokens",
    "KeyedLimiter",
    "KeyedTokenBucket",
    "Limiter",
    "QueueFull",
    "Rate",
    "RateLike",
    "RateLimitError",
    "Reservation",
    "TokenBucket",
    "TooManyKeys",
    "Verdict",
    "WaitTooLong",
    "source_key",
]
