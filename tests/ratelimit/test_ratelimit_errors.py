"""What every error of the package has in common."""

from __future__ import annotations

import copy
import math
import pickle
from fractions import Fraction

import pytest

from esockd_ratelimit import (
    BurstExceeded,
    InvalidOption,
    InvalidRate,
    InvalidTokens,
    QueueFull,
    RateLimitError,
    TooManyKeys,
    WaitTooLong,
)
from esockd_ratelimit.redis import NotEntered, ServerAway

FEWER = "Ask for fewer at a time, or give the bucket a larger burst."


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (InvalidRate("it takes 1", option="rate", value=2, hint="Do this."), "rate is 2: it takes 1. Do this."),
        (InvalidOption("it takes 1", option="lease"), "lease: it takes 1."),
        (InvalidOption("they exclude each other"), "they exclude each other."),
        (InvalidTokens("it takes 1", value="x" * 81), f"'{'x' * 80}'...: it takes 1."),
        (InvalidTokens("it takes 1", value=[0] * 99), f"{str([0] * 99)[:80]}...: it takes 1."),
        (BurstExceeded(6, Fraction(5)), f"n is 6: this bucket never holds more than its burst of 5. {FEWER}"),
        (WaitTooLong(5, math.inf, 4.5), "5 tokens would take inf s, longer than the 4.5 s allowed"),
        (QueueFull(7), "7 callers already wait for this bucket: shed load, or raise max_waiters"),
        (TooManyKeys(7), "7 keys are being limited already and new ones are refused: raise max_keys"),
        (NotEntered("use it in async with"), "use it in async with"),
        (ServerAway("no answer"), "no answer"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_says_what_it_is_about_and_survives_copying_and_pickling(error: RateLimitError, text: str) -> None:
    assert isinstance(error, ValueError) is hasattr(error, "option")
    for twin in (error, copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error))):
        assert type(twin) is type(error)
        assert vars(twin) == vars(error)
        assert str(twin) == text
