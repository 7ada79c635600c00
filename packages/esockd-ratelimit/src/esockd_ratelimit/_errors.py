"""What can go wrong, in one small tree."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fractions import Fraction


class RateLimitError(Exception):
    """Base class of every error of this package."""


class InvalidRateError(RateLimitError, ValueError):
    """A rate, burst or option that no limiter can be built from."""


class InvalidTokensError(RateLimitError, ValueError):
    """A number of tokens that is not a whole number from 0 up."""


class BurstExceededError(RateLimitError, ValueError):
    """A request for more tokens than the bucket can ever hold: no waiting helps.

    Attributes:
        tokens: What was asked for.
        burst: The most that can be granted at once.
    """

    def __init__(self, tokens: int, burst: Fraction) -> None:
        self.tokens = tokens
        self.burst = burst
        super().__init__(
            f"{tokens} tokens exceed the burst of {float(burst):g}, the most this bucket ever holds: "
            "ask for fewer at a time, or give the bucket a larger burst"
        )


class WaitTooLongError(RateLimitError):
    """The tokens would come later than the caller is willing to wait. Nothing was charged.

    Attributes:
        wait_s: Seconds until they would come, `math.inf` at rate 0.
    """

    def __init__(self, tokens: int, wait_s: float, max_wait_s: float) -> None:
        self.wait_s = wait_s
        super().__init__(f"{tokens} tokens would take {wait_s:.6g} s, longer than the {max_wait_s:.6g} s allowed")


class QueueFullError(RateLimitError):
    """As many callers as allowed already wait for this bucket. Nothing was charged.

    Attributes:
        max_waiters: The bound that was reached.
    """

    def __init__(self, max_waiters: int) -> None:
        self.max_waiters = max_waiters
        super().__init__(f"{max_waiters} callers already wait for this bucket: shed load, or raise max_waiters")


class TooManyKeysError(RateLimitError):
    """The table of keys is full of keys that are being limited, and its policy is to refuse new ones.

    Attributes:
        max_keys: The bound that was reached.
    """

    def __init__(self, max_keys: int) -> None:
        self.max_keys = max_keys
        super().__init__(f"{max_keys} keys are being limited already and new ones are refused: raise max_keys")
