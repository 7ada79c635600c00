"""A rate, exact: so many tokens a second, and the burst that goes with it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from ._errors import InvalidRateError

Number = int | float | Fraction

UNITS_S: Final = {"s": 1, "min": 60, "h": 3600, "d": 86400}
ALIASES: Final = {
    "": "s", "sec": "s", "second": "s", "m": "min", "minute": "min", "hour": "h", "day": "d",
}  # fmt: skip
PATTERN: Final = re.compile(
    r"\s*(?P<amount>\d+(?:\.\d+)?)"
    r"(?:\s*/\s*(?P<count>\d+(?:\.\d+)?)?\s*(?P<unit>[a-z]+))?"
    r"(?:\s+burst\s+(?P<burst>\d+(?:\.\d+)?))?\s*",
    re.ASCII | re.IGNORECASE,
)
EXAMPLES: Final = 'write it as "100/s", "6000/min", "500/10s" or "2.5/s burst 10"; units are s, min, h and d'


def exact(value: object, what: str) -> Fraction:
    """A finite number from 0 up as a fraction; a float counts as the decimal it prints as, so 0.1 is 1/10.

    Raises:
        InvalidRateError: It is negative, infinite, NaN or no number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | Fraction):
        hint = ": parse text with Rate.parse" if isinstance(value, str) else ""
        raise InvalidRateError(f"{what} must be an int, a float or a Fraction, not {value!r}{hint}")
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidRateError(f"{what} must be finite, not {value!r}: for no limit use no limiter")
    fraction = Fraction(repr(float(value))) if isinstance(value, float) else Fraction(value)
    if fraction < 0:
        raise InvalidRateError(f"{what} must be 0 or more, not {value!r}")
    return fraction


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
        InvalidRateError: A number is negative, infinite or NaN, or the burst is below 1.
    """

    per_s: Fraction
    burst: Fraction

    def __init__(self, per_s: Number, burst: Number | None = None) -> None:
        rate = exact(per_s, "a rate")
        most = max(rate, Fraction(1)) if burst is None else exact(burst, "a burst")
        if most < 1:
            raise InvalidRateError(f"a burst must be at least 1, not {burst!r}: below 1 no request could ever pass")
        object.__setattr__(self, "per_s", rate)
        object.__setattr__(self, "burst", most)

    @classmethod
    def parse(cls, text: str) -> Rate:
        """Read `100/s`, `6000/min`, `500/10s` or `2.5/s burst 10`; a bare number counts a second.

        Units are `s` (`sec`, `second`), `min` (`m`, `minute`), `h` (`hour`) and `d` (`day`).

        Raises:
            InvalidRateError: The text is not a rate; the message says what is.
        """
        found = PATTERN.fullmatch(text)
        if not found:
            raise InvalidRateError(f"{text!r} is not a rate: {EXAMPLES}")
        word = (found["unit"] or "").lower()
        unit = ALIASES.get(word, word)
        if unit not in UNITS_S:
            raise InvalidRateError(f"{text!r} has the unknown unit {found['unit']!r}: {EXAMPLES}")
        interval_s = Fraction(found["count"] or 1) * UNITS_S[unit]
        if not interval_s:
            raise InvalidRateError(f"{text!r} has an interval of 0: {EXAMPLES}")
        burst = None if found["burst"] is None else Fraction(found["burst"])
        return cls(Fraction(found["amount"]) / interval_s, burst)

    @classmethod
    def of(cls, rate: Number | Rate, burst: Number | None = None) -> Rate:
        """A number or a `Rate` as a `Rate`; a burst given here goes before the rate's own.

        Raises:
            InvalidRateError: As the constructor.
        """
        if not isinstance(rate, Rate):
            return cls(rate, burst)
        return rate if burst is None else cls(rate.per_s, burst)

    def __str__(self) -> str:
        """The rate as `parse` reads it, in the smallest unit that needs no endless decimals."""
        per_unit = ((_decimal(self.per_s * unit_s), unit) for unit, unit_s in UNITS_S.items())
        texts = (f"{amount}/{unit}" for amount, unit in per_unit if amount)
        text = next(texts, f"{self.per_s.numerator}/{self.per_s.denominator}s")
        burst = _decimal(self.burst)
        return text if self.burst == max(self.per_s, Fraction(1)) or not burst else f"{text} burst {burst}"


def _decimal(value: Fraction) -> str | None:
    """An exact decimal of at most six places, or None."""
    millionths = value * 10**6
    if millionths.denominator != 1:
        return None
    whole, rest = divmod(millionths.numerator, 10**6)
    return f"{whole}.{rest:06}".rstrip("0").rstrip(".") if rest else str(whole)
