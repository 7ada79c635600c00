"""The units of time in which a bucket counts, so that it never has to divide.

If a nanosecond refills p/q of a token, time is counted in units of 1/p nanosecond. A nanosecond is then p units, a
token takes q units to refill, and both are whole numbers. At rate 0 a nanosecond is 0 units: time stands still, and the
burst is all there is.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, Final, NamedTuple

from ._errors import InvalidTokens

if TYPE_CHECKING:
    from ._rate import Rate

NS_PER_S: Final = 10**9


class Units(NamedTuple):
    """A rate and its burst in whole units of time.

    Attributes:
        per_ns: Units in a nanosecond; 0 at rate 0.
        token: Units in which one token refills.
        capacity: Units in which the whole burst refills.
    """

    per_ns: int
    token: int
    capacity: int

    @classmethod
    def of(cls, rate: Rate, tokens: Fraction = Fraction(0)) -> Units:
        """Units in which the rate, its burst and the given number of tokens are whole."""
        share = rate.per_s / NS_PER_S  # of a token, in a nanosecond
        token = share.denominator
        finer = math.lcm((rate.burst * token).denominator, (tokens * token).denominator)
        return cls(share.numerator * finer, token * finer, int(rate.burst * token * finer))


def checked(n: object) -> int:
    """The number of tokens.

    Raises:
        InvalidTokens: If it is not a whole number from 0 up.
    """
    if not isinstance(n, int) or n < 0:
        raise InvalidTokens("it takes a whole number, 0 or more", option="n", value=n)
    return n


def seconds(units: int, per_ns: int) -> float:
    """The seconds in which these units pass, rounded up to whole nanoseconds; infinite if time stands still."""
    if units <= 0:
        return 0.0
    return -(-units // per_ns) / NS_PER_S if per_ns else math.inf
