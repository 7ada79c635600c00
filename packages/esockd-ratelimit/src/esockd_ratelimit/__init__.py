"""Exact token buckets: alone, keyed, composed and shared."""

from ._bucket import Reservation, TokenBucket
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
    "WaitTooLongError",
    "source_key",
]
