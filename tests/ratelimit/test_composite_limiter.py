"""Several limits at once: all are charged or none, and the answer names who said no."""

from __future__ import annotations

import math
from fractions import Fraction

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esockd_ratelimit import (
    BurstExceeded,
    CompositeLimiter,
    InvalidOption,
    KeyedTokenBucket,
    QueueFull,
    TokenBucket,
    Verdict,
)
from esockd_ratelimit.testing import FakeClock


class Limits:
    """A program, a listener, and sources."""

    def __init__(self, program: int = 10, listener: int = 5, source: int = 2) -> None:
        self.clock = FakeClock()
        self.program = TokenBucket(1, program, self.clock)
        self.listener = TokenBucket(1, listener, self.clock)
        self.source = KeyedTokenBucket(1, source, self.clock)
        self.composite = CompositeLimiter({"source": self.source, "program": self.program, "listener": self.listener})

    def held(self) -> tuple[int, int, float]:
        return self.program.peek(), self.listener.peek(), self.source.wait_time("a", 2)


def test_a_granted_request_is_charged_to_every_limit() -> None:
    limits = Limits()
    verdict = limits.composite.decide(2, key="a")
    assert verdict
    assert verdict == Verdict(granted=True, limited_by=None, retry_after=0.0)
    assert limits.held() == (8, 3, 2.0)


def test_a_refused_request_is_charged_to_none_and_the_answer_names_the_limit() -> None:
    limits = Limits()
    limits.composite.decide(2, key="a")
    before = limits.held()
    verdict = limits.composite.decide(1, key="a")
    assert not verdict
    assert verdict == Verdict(granted=False, limited_by="source", retry_after=1.0)
    assert limits.held() == before


def test_if_several_limits_refuse_the_one_that_lasts_longest_is_named() -> None:
    limits = Limits(listener=2)
    limits.listener.try_acquire(2)
    limits.program.try_acquire(10)
    limits.program.reserve(3)
    assert limits.composite.decide(1, key="a") == Verdict(granted=False, limited_by="program", retry_after=4.0)
    assert limits.source.key_count == 0


def test_coming_back_when_told_succeeds() -> None:
    limits = Limits()
    limits.composite.decide(2, key="a")
    limits.listener.try_acquire(3)
    verdict = limits.composite.decide(2, key="a")
    assert limits.composite.wait_time(2, key="a") == verdict.retry_after == 2.0
    limits.clock.advance(verdict.retry_after)
    assert limits.composite.try_acquire(2, key="a")


def test_a_second_keyed_limit_that_refuses_leaves_the_first_untouched() -> None:
    clock = FakeClock()
    wide, narrow = KeyedTokenBucket(1, 5, clock), KeyedTokenBucket(1, 1, clock)
    composite = CompositeLimiter({"wide": wide, "narrow": narrow})
    assert composite.try_acquire(key="a")
    assert composite.decide(key="a") == Verdict(granted=False, limited_by="narrow", retry_after=1.0)
    assert wide.wait_time("a", 5) == 1.0


def test_what_a_shared_overflow_bucket_granted_is_given_back_too() -> None:
    clock = FakeClock()
    crowded = KeyedTokenBucket(1, 2, clock, max_keys=1, when_full="share")
    narrow = KeyedTokenBucket(1, 1, clock)
    crowded.try_acquire("other")
    narrow.try_acquire("a")
    assert not CompositeLimiter({"crowded": crowded, "narrow": narrow}).try_acquire(key="a")
    assert crowded.try_acquire("a", 2)


def test_a_limit_that_would_never_come_is_named_with_an_endless_wait() -> None:
    composite = CompositeLimiter({"allowance": TokenBucket(0, 1, FakeClock()), "rate": TokenBucket(1, 1, FakeClock())})
    assert composite.try_acquire()
    assert composite.decide() == Verdict(granted=False, limited_by="allowance", retry_after=math.inf)


def test_a_request_above_one_limits_burst_is_charged_to_none() -> None:
    limits = Limits()
    with pytest.raises(BurstExceeded):
        limits.composite.decide(3, key="a")
    assert limits.held() == (10, 5, 0.0)


def test_a_composite_of_nothing_is_refused() -> None:
    with pytest.raises(InvalidOption, match=r"^limits is {}: it takes at least one limit"):
        CompositeLimiter({})


def test_a_composite_takes_buckets_of_this_package_only() -> None:
    with pytest.raises(InvalidOption, match=r"^limits\['all'\] is '500/s': it takes a TokenBucket or a Keyed"):
        CompositeLimiter({"source": KeyedTokenBucket(1), "all": "500/s"})  # type: ignore[dict-item]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from("ab"), st.integers(0, 2 * 10**9)), max_size=60),
    st.lists(st.fractions(min_value=0, max_value=3, max_denominator=9), min_size=3, max_size=3),
)
def test_a_composite_equals_a_fraction_model(calls: list[tuple[int, str, int]], rates: list[Fraction]) -> None:
    clock = FakeClock()
    one, two, three = rates
    keyed = KeyedTokenBucket(three, 3, clock)
    composite = CompositeLimiter({"k": keyed, "1": TokenBucket(one, 5, clock), "2": TokenBucket(two, 4, clock)})
    burst = {"1": 5, "2": 4, "a": 3, "b": 3}
    rate = {"1": one, "2": two, "a": three, "b": three}
    held = {name: Fraction(most) for name, most in burst.items()}
    for n, key, step_ns in calls:
        clock.now_ns += step_ns
        held = {
            name: min(tokens + rate[name] * Fraction(step_ns, 10**9), Fraction(burst[name]))
            for name, tokens in held.items()
        }
        granted = all(held[name] >= n for name in ("1", "2", key))
        assert composite.try_acquire(n, key=key) is granted
        for name in ("1", "2", key):
            held[name] -= n * granted


async def call(limits: Limits, name: str, served: list[str], n: int = 1) -> None:
    await limits.composite.acquire(n, key=name)
    served.append(name)


@pytest.mark.anyio
async def test_acquire_waits_for_every_limit() -> None:
    limits, served = Limits(program=10, listener=10, source=1), list[str]()
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            await limits.composite.acquire(key="a")
            limits.listener.try_acquire(9)
            limits.listener.reserve(1)
            tasks.start_soon(call, limits, "a", served)
            for expected in ([], [], ["a"]):
                await anyio.wait_all_tasks_blocked()
                assert served == expected
                limits.clock.advance(1)
    assert limits.program.peek() == 10


@pytest.mark.anyio
async def test_a_source_that_waits_holds_up_no_other() -> None:
    limits, served = Limits(source=1), list[str]()
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            await limits.composite.acquire(key="a")
            for _ in range(4):
                tasks.start_soon(call, limits, "a", served)
            await anyio.wait_all_tasks_blocked()
            for name in "bcd":
                await limits.composite.acquire(key=name)
            assert served == []
            tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_a_cancelled_caller_gives_back_what_the_other_limits_granted() -> None:
    limits = Limits(program=2, listener=2, source=2)
    limits.program.try_acquire(2)
    before = limits.held()
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(limits.composite.acquire, 1)
            await anyio.wait_all_tasks_blocked()
            assert limits.program.waiters == 1
            tasks.cancel_scope.cancel()
    assert limits.held() == before
    assert limits.source.wait_time(None, 2) == 0.0


@pytest.mark.anyio
async def test_those_who_wait_for_a_source_move_up_when_a_caller_before_them_gives_back() -> None:
    limits = Limits(program=2, listener=2, source=2)
    limits.program.try_acquire(2)
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            first = anyio.CancelScope()

            async def caller() -> None:
                with first:
                    await limits.composite.acquire(2, key="a")

            tasks.start_soon(caller)
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(limits.source.acquire, "a")
            await anyio.wait_all_tasks_blocked()
            assert limits.source.wait_time("a") == 2.0
            first.cancel()
            await anyio.wait_all_tasks_blocked()
            assert limits.source.wait_time("a") == 0.0


@pytest.mark.anyio
async def test_a_full_queue_of_one_limit_leaves_the_others_uncharged() -> None:
    clock = FakeClock()
    free = TokenBucket(1, 5, clock)
    full = TokenBucket(1, 1, clock, max_waiters=0)
    full.try_acquire()
    with pytest.raises(QueueFull):
        await CompositeLimiter({"free": free, "full": full}).acquire()
    assert free.peek() == 5


@pytest.mark.anyio
async def test_a_source_that_waited_gives_back_when_a_later_limit_refuses() -> None:
    clock = FakeClock()
    source, full = KeyedTokenBucket(1, 2, clock), TokenBucket(1, 1, clock, max_waiters=0)
    composite = CompositeLimiter({"full": full, "source": source})
    full.reserve()
    full.reserve(1)
    source.try_acquire("a", 2)
    refused = False

    async def caller() -> None:
        nonlocal refused
        with pytest.raises(QueueFull):
            await composite.acquire(key="a")
        refused = True

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(caller)
            await anyio.wait_all_tasks_blocked()
            full.reserve()
            clock.advance(1)
    assert refused
    assert source.wait_time("a", 1) == 0.0
