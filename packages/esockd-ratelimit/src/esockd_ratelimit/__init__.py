"""Exact token buckets: alone, keyed, composed and shared."""

from ._bucket import Reservation, TokenBucket
from ._composite import CompositeLimiter, Verdict
from ._errors import (
    BurstExceededError,
    InvalidRateError,
    InvalidTokensError,
    QueueFullError,
    RateLimitError,
    TooManyKeysError,
    WaitTooLongError,
)
from ._keyed import KeyedTokenBucket, source_key
from ._protocol import KeyedLimiter, Limiter
from ._rate import Rate

__all__ = [
    "BurstExceededError",
    "CompositeLimiter",
    "InvalidRateError",
    "InvalidTokensError",
    "KeyedLimiter",
    "KeyedTokenBucket",
    "Limiter",
    "QueueFullError",
    "Rate",
    "RateLimitError",
    "Reservation",
    "TokenBucket",
    "TooManyKeysError",
    "Verdict",
    "WaitTooLongError",
    "source_key",
]
