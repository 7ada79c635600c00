"""The token bucket equals a slow, obvious bucket of `Fraction` tokens, whatever is done to it."""

from __future__ import annotations

import math
from fractions import Fraction

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from esockd_ratelimit import BurstExceeded, Rate, Reservation, TokenBucket, WaitTooLong
from esockd_ratelimit.testing import FakeClock

NS = 10**9
RATES = st.one_of(
    st.integers(0, 5),
    st.sampled_from([0.1, 0.3, 2.5, 1000, 10**9, 3 * 10**9]),
    st.fractions(min_value=0, max_value=10, max_denominator=50),
)
BURSTS = st.one_of(st.none(), st.integers(1, 8), st.sampled_from([1.5, Fraction(7, 3)]))
TOKENS = st.integers(0, 8)


class ModelClaim:
    """A promise: open, or due with so many tokens of the bucket not refilled since."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.unrefilled: Fraction | None = None


class ModelBucket:
    """Tokens as a fraction, negative while promises are open, refilled step by step."""

    def __init__(self, rate: Rate) -> None:
        self.rate, self.tokens = rate, rate.burst
        self.open: list[ModelClaim] = []
        self.due: list[ModelClaim] = []

    def tokens_at(self, claim: ModelClaim) -> Fraction:
        """What the bucket would hold if no promise had been made after this one."""
        return self.tokens + sum(other.n for other in self.open[self.open.index(claim) + 1 :])

    def advance(self, ns: int) -> None:
        refill = self.rate.per_s * Fraction(ns, NS)
        for claim in self.due:
            assert claim.unrefilled is not None
            claim.unrefilled -= refill
        for claim in list(self.open):
            reached = self.tokens_at(claim) + refill
            if reached >= 0:
                claim.unrefilled = self.rate.burst - reached
                self.due.append(claim)
        self.open = [claim for claim in self.open if claim.unrefilled is None]
        self.tokens = min(self.rate.burst, self.tokens + refill)

    def wait_ns(self, n: int) -> float:
        missing = n - self.tokens
        if not n or missing <= 0:
            return 0
        return math.ceil(missing / self.rate.per_s * NS) if self.rate.per_s else math.inf

    def claim(self, n: int) -> ModelClaim:
        claim = ModelClaim(n)
        self.tokens -= n
        if self.tokens >= 0 or not n:
            claim.unrefilled = self.rate.burst - self.tokens
            self.due.append(claim)
        else:
            self.open.append(claim)
        return claim

    def cancel(self, claim: ModelClaim) -> None:
        if claim in self.open:
            self.open.remove(claim)
            self.tokens += claim.n
        elif claim in self.due:
            self.due.remove(claim)
            assert claim.unrefilled is not None
            self.tokens += min(Fraction(claim.n), max(claim.unrefilled, Fraction(0)))
        self.advance(0)

    def reconfigure(self, rate: Rate) -> None:
        self.rate, self.tokens = rate, min(self.tokens, rate.burst)
        self.due.clear()  # what was due gives nothing back from now on


class BucketMachine(RuleBasedStateMachine):
    """Both do the same; every answer is compared."""

    @initialize(rate=RATES, burst=BURSTS)
    def build(self, rate: float, burst: float | None) -> None:
        self.clock = FakeClock(7)
        self.latest_ns = 7
        self.bucket = TokenBucket(rate, burst, self.clock)
        self.model = ModelBucket(Rate(rate, burst))
        self.reservations: list[tuple[Reservation, ModelClaim]] = []

    @rule(ns=st.one_of(st.integers(-NS, 3 * NS), st.sampled_from([0, 1, NS, 3 * NS]), st.integers(0, 3)))
    def time_passes(self, ns: int) -> None:
        self.clock.now_ns += ns
        passed = max(self.clock.now_ns - self.latest_ns, 0)
        self.latest_ns += passed
        self.model.advance(passed)

    @rule(n=TOKENS)
    def time_passes_until_just_before_or_at_the_moment(self, n: int) -> None:
        wait_ns = self.model.wait_ns(n)
        if 1 < wait_ns < math.inf:
            self.clock.now_ns = self.latest_ns
            self.time_passes(int(wait_ns) - 1)
            if n <= self.model.rate.burst:
                assert not self.bucket.try_acquire(n)
            self.time_passes(1)
            if n <= self.model.rate.burst:
                assert self.bucket.try_acquire(n)
                self.model.tokens -= n

    @rule(n=TOKENS)
    def take(self, n: int) -> None:
        if n > self.model.rate.burst:
            try:
                self.bucket.try_acquire(n)
            except BurstExceeded:
                return
            raise AssertionError
        granted = not n or self.model.tokens >= n
        assert self.bucket.try_acquire(n) is granted
        self.model.tokens -= n if granted else 0

    @rule(n=TOKENS, max_wait=st.sampled_from([None, 0, 0.5, 2]))
    def reserve(self, n: int, max_wait: float | None) -> None:
        if n > self.model.rate.burst:
            return
        wait_s = self.model.wait_ns(n) / NS
        if wait_s == math.inf or (max_wait is not None and wait_s > max_wait):
            try:
                self.bucket.reserve(n, max_wait)
            except WaitTooLong as error:
                assert error.wait_time == wait_s  # noqa: PT017 - a rule of a machine, not a test
                return
            raise AssertionError
        self.reservations.append((self.bucket.reserve(n, max_wait), self.model.claim(n)))

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        if self.reservations:
            reservation, claim = data.draw(st.sampled_from(self.reservations))
            reservation.cancel()
            self.model.cancel(claim)

    @rule(rate=RATES, burst=BURSTS)
    def reconfigure(self, rate: float, burst: float | None) -> None:
        self.bucket.reconfigure(rate, burst)
        self.model.reconfigure(Rate(rate, burst))

    @invariant()
    def answers_agree(self) -> None:
        assert self.bucket.peek() == max(math.floor(self.model.tokens), 0)
        for n in range(math.floor(self.model.rate.burst) + 1 if self.model.rate.burst < 10 else 2):
            assert self.bucket.wait_time(n) == self.model.wait_ns(n) / NS
        for reservation, claim in self.reservations:
            debt = -self.model.tokens_at(claim) if claim in self.model.open else Fraction(0)
            rate = self.model.rate.per_s
            expected = 0.0 if debt <= 0 else math.ceil(debt / rate * NS) / NS if rate else math.inf
            assert reservation.wait_time() == expected


TestBucketEqualsItsModel = BucketMachine.TestCase
TestBucketEqualsItsModel.settings = settings(stateful_step_count=25)
