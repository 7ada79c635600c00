"""What can go wrong, in one small tree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from fractions import Fraction

LONGEST_QUOTE: Final = 80


class RateLimitError(Exception):
    """Base class of every error of this package."""


class BadValueError(RateLimitError, ValueError):
    """Base of the errors about one value. Prints as `burst is 0.5: it takes a number, 1 or more`.

    Attributes:
        reason: What is wrong, or what is allowed.
        option: The name of the argument, such as `rate`; None when several do not go together.
        value: What was given; `...` when the error is about no single value.
        hint: What to do about it, in a sentence of its own; None when the reason says it all.
    """

    def __init__(self, reason: str, *, option: str | None = None, value: object = ..., hint: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.option = option
        self.value = value
        self.hint = hint

    def __str__(self) -> str:
        shown = [] if self.value is ... else [quote(self.value)]
        subject = " is ".join([self.option, *shown] if self.option else shown)
        return f"{subject and f'{subject}: '}{self.reason}.{f' {self.hint}' if self.hint else ''}"


class InvalidRate(BadValueError):
    """A rate or a burst that no bucket can have."""


class InvalidOption(BadValueError):
    """Another argument that no limiter can be built from."""


class InvalidTokens(BadValueError):
    """A number of tokens that is not a whole number from 0 up."""


class BurstExceeded(BadValueError):
    """A request for more tokens (`value`) than the bucket can ever hold: no waiting helps.

    Attributes:
        burst: The most that can be granted at once.
    """

    def __init__(self, tokens: int, burst: Fraction) -> None:
        reason = f"this bucket never holds more than its burst of {float(burst):g}"
        hint = "Ask for fewer at a time, or give the bucket a larger burst."
        super().__init__(reason, option="n", value=tokens, hint=hint)
        self.burst = burst

    def __reduce__(self) -> tuple[type[BurstExceeded], tuple[object, Fraction]]:
        return type(self), (self.value, self.burst)


class WaitTooLong(RateLimitError):
    """The tokens would come later than the caller would wait. Nothing was charged.

    Attributes:
        tokens: What was asked for.
        wait_time: Seconds until they would come, `math.inf` at rate 0.
        max_wait: Seconds that the caller would have waited.
    """

    def __init__(self, tokens: int, wait_time: float, max_wait: float) -> None:
        super().__init__(tokens, wait_time, max_wait)
        self.tokens = tokens
        self.wait_time = wait_time
        self.max_wait = max_wait

    def __str__(self) -> str:
        return f"{self.tokens} tokens would take {self.wait_time:.6g} s, longer than the {self.max_wait:.6g} s allowed"


class QueueFull(RateLimitError):
    """As many callers as allowed already wait. Nothing was charged.

    Attributes:
        max_waiters: The bound that was reached.
    """

    def __init__(self, max_waiters: int) -> None:
        super().__init__(max_waiters)
        self.max_waiters = max_waiters

    def __str__(self) -> str:
        return f"{self.max_waiters} callers already wait for this bucket: shed load, or raise max_waiters"


class TooManyKeys(RateLimitError):
    """The table of keys is full of keys that are being limited, and its policy is to refuse new ones.

    Attributes:
        max_keys: The bound that was reached.
    """

    def __init__(self, max_keys: int) -> None:
        super().__init__(max_keys)
        self.max_keys = max_keys

    def __str__(self) -> str:
        return f"{self.max_keys} keys are being limited already and new ones are refused: raise max_keys"


def quote(value: object) -> str:
    """The value as an error message shows it: escaped as `repr` does, and cut when it is long."""
    if isinstance(value, str):
        return repr(value) if len(value) <= LONGEST_QUOTE else f"{value[:LONGEST_QUOTE]!r}..."
    shown = repr(value)
    return shown if len(shown) <= LONGEST_QUOTE else f"{shown[:LONGEST_QUOTE]}..."
