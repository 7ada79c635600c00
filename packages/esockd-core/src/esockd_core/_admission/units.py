"""The units of time in which the buckets of admission count, so that they never have to divide.

The arithmetic is that of `esockd_ratelimit`, for buckets that share their entry with something else: with the number of
their source's connections, or with other processes.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from esockd_ratelimit import Rate

NS_PER_S: Final = 10**9
FINER: Final = 1 << 20  # than needed, so that a change of the rate rounds by less than a millionth of a token


class Units(NamedTuple):
    """A rate and its burst in whole units of time, in which a nanosecond, a token and the burst are all whole."""

    per_ns: int
    token: int
    capacity: int

    @classmethod
    def of(cls, rate: Rate) -> Units:
        """The units of a rate."""
        share = rate.per_s / NS_PER_S  # of a token, in a nanosecond
        token = share.denominator
        finer = Fraction(rate.burst * token).denominator * FINER
        return cls(share.numerator * finer, token * finer, int(rate.burst * token * finer))

    def seconds(self, units: int) -> float:
        """The seconds in which a number of units pass; infinite at rate 0."""
        if units <= 0:
            return 0.0
        return -(-units // self.per_ns) / NS_PER_S if self.per_ns else math.inf


def converted(full_at: int, old: Units, new: Units, now_ns: int) -> int:
    """The state of a bucket in other units. It keeps its tokens, as far as the new burst holds them."""
    left = old.capacity - max(full_at - now_ns * old.per_ns, 0)
    return now_ns * new.per_ns + max(0, new.capacity - left * new.token // old.token)
