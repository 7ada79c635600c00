"""An exact rate: tokens a second, and the burst that goes with them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, TypeAlias

from ._errors import InvalidRate

Number: TypeAlias = int | float | Fraction

UNITS_S: Final = {"s": 1, "min": 60, "h": 3600, "d": 86400}
ALIASES: Final = {
    "": "s", "sec": "s", "second": "s", "m": "min", "minute": "min", "hour": "h", "day": "d",
}  # fmt: skip
DECIMAL: Final = r"\d{1,400}(?:\.\d{1,400})?"  # holds every float, and Python reads no number of 4,300 digits
PATTERN: Final = re.compile(
    rf"\s*(?P<amount>{DECIMAL})"
    rf"(?:\s*/\s*(?P<count>{DECIMAL})?\s*(?P<unit>[a-z]+))?"
    rf"(?:\s+burst\s+(?P<burst>{DECIMAL}))?\s*",
    re.ASCII | re.IGNORECASE,
)
EXAMPLES: Final = 'Write it as "100/s", "6000/min", "500/10s" or "2.5/s burst 10"; units are s, min, h and d.'


def exact(value: object, option: str) -> Fraction:
    """A finite number from 0 up as a fraction; a float counts as the decimal it prints as, so 0.1 is 1/10.

    Raises:
        InvalidRate: If it is negative, infinite, NaN or not a number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | Fraction):
        hint = "Read text with Rate.parse." if isinstance(value, str) else None
        raise InvalidRate("it takes an int, a float or a Fraction", option=option, value=value, hint=hint)
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidRate("it takes a finite number", option=option, value=value, hint="For no limit use no limiter.")
    if value < 0:
        raise InvalidRate("it takes a number, 0 or more", option=option, value=value)
    return Fraction(repr(float(value))) if isinstance(value, float) else Fraction(value)


@dataclass(frozen=True, slots=True, init=False)
class Rate:
    """Tokens a second, with the burst that may be taken at once.

    Args:
        per_s: Tokens a second, 0 or more. A float counts as the decimal it prints as: 0.1 is exactly 1/10.
        burst: The most tokens a bucket of this rate holds, at least 1. By default one second's worth and at least 1.

    Attributes:
        per_s: Tokens a second, exact.
        burst: Tokens, exact.

    Raises:
        InvalidRate: If a number is negative, infinite or NaN, or the burst is below 1.
    """

    per_s: Fraction
    burst: Fraction

    def __init__(self, per_s: Number, burst: Number | None = None) -> None:
        rate = exact(per_s, "rate")
        most = max(rate, Fraction(1)) if burst is None else exact(burst, "burst")
        if most < 1:
            hint = "Below 1 no request could ever pass."
            raise InvalidRate("it takes a number, 1 or more", option="burst", value=burst, hint=hint)
        object.__setattr__(self, "per_s", rate)
        object.__setattr__(self, "burst", most)

    @classmethod
    def parse(cls, text: str) -> Rate:
        """Read `100/s`, `6000/min`, `500/10s` or `2.5/s burst 10`; a bare number counts a second.

        Units are `s` (`sec`, `second`), `min` (`m`, `minute`), `h` (`hour`) and `d` (`day`).

        Raises:
            InvalidRate: If the text is not a rate; the error says what is.
        """
        if not isinstance(text, str):
            raise InvalidRate(f"it takes text, not {type(text).__name__}", option="rate", value=text, hint=EXAMPLES)
        found = PATTERN.fullmatch(text)
        if not found:
            raise InvalidRate("that is not a rate", option="rate", value=text, hint=EXAMPLES)
        word = (found["unit"] or "").lower()
        unit = ALIASES.get(word, word)
        if unit not in UNITS_S:
            raise InvalidRate(f"{found['unit']!r} is not a unit", option="rate", value=text, hint=EXAMPLES)
        interval_s = Fraction(found["count"] or 1) * UNITS_S[unit]
        if not interval_s:
            raise InvalidRate("an interval is more than 0", option="rate", value=text, hint=EXAMPLES)
        burst = None if found["burst"] is None else Fraction(found["burst"])
        return cls(Fraction(found["amount"]) / interval_s, burst)

    @classmethod
    def of(cls, rate: RateLike, burst: Number | None = None) -> Rate:
        """The `Rate` for a number, a text or a `Rate`; a burst given here overrides the rate's own.

        Raises:
            InvalidRate: As for the constructor and `parse`.
        """
        if isinstance(rate, str):
            rate = cls.parse(rate)
        if not isinstance(rate, Rate):
            return cls(rate, burst)
        return rate if burst is None else cls(rate.per_s, burst)

    def __str__(self) -> str:
        """The rate as `parse` reads it, in the smallest unit that needs no endless decimal."""
        per_unit = ((_decimal(self.per_s * unit_s), unit) for unit, unit_s in UNITS_S.items())
        texts = (f"{amount}/{unit}" for amount, unit in per_unit if amount)
        text = next(texts, f"{self.per_s.numerator}/{self.per_s.denominator}s")
        burst = _decimal(self.burst)
        return text if self.burst == max(self.per_s, Fraction(1)) or not burst else f"{text} burst {burst}"


RateLike: TypeAlias = Number | str | Rate
"""A rate: tokens a second as a number, text that `Rate.parse` reads, or a `Rate`."""


def _decimal(value: Fraction) -> str | None:
    """An exact decimal of at most six places, or None."""
    millionths = value * 10**6
    if millionths.denominator != 1:
        return None
    whole, rest = divmod(millionths.numerator, 10**6)
    return f"{whole}.{rest:06}".rstrip("0").rstrip(".") if rest else str(whole)
