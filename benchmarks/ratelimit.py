"""What one decision of a rate limiter costs, against a bare GCRA and against other Python limiters, in one run.

Usage:
    python -m tools.venv .venv-bench bench-ratelimit
    .venv-bench/bin/python benchmarks/ratelimit.py

Prints CPU time of the process for each operation: the median of interleaved rounds, each on fresh limiters, and the
ratio to esockd-ratelimit in the same run. The bare GCRA is the algorithm in one class and nothing else: no rate 0, no
check of its input, no queue, and a rate that divides a second without rest.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.metadata import version

import anyio

from esockd_ratelimit import KeyedTokenBucket, TokenBucket

PEERS = ["aiolimiter", "limits", "pyrate-limiter", "throttled-py"]
PLENTY = 10**6
SOURCES = [f"10.0.{number >> 8}.{number & 255}" for number in range(1000)]

Operation = Callable[[], object]
Contest = dict[str, Callable[[], Operation]]


class BareGcra:
    """The Generic Cell Rate Algorithm in whole nanoseconds, and nothing else."""

    def __init__(self, rate: int, burst: int, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self.clock = clock
        self.cost = 10**9 // rate
        self.burst = burst * self.cost
        self.full_at = 0

    def try_acquire(self, n: int = 1) -> bool:
        """Whether n tokens were taken."""
        now = self.clock()
        full_at = self.full_at
        if full_at < now:
            full_at = now
        full_at += n * self.cost
        if full_at - now > self.burst:
            return False
        self.full_at = full_at
        return True


def limits_of(strategy: str, amount: int, keys: list[str] | None = None) -> Operation:
    limits, storage = import_module("limits"), import_module("limits.storage").MemoryStorage()
    limiter = getattr(import_module("limits.strategies"), strategy)(storage)
    item = limits.RateLimitItemPerSecond(amount) if amount > 1 else limits.RateLimitItemPerHour(1)
    if keys is None:
        return lambda: limiter.hit(item, "key")
    following = iter(keys)
    return lambda: limiter.hit(item, next(following))


def throttled_of(algorithm: str, amount: int, keys: list[str] | None = None) -> Operation:
    throttled = import_module("throttled")
    quota = throttled.per_sec(amount) if amount > 1 else throttled.per_hour(1)
    limiter = throttled.Throttled(
        using=algorithm, quota=quota, store=throttled.MemoryStore(options={"MAX_SIZE": 10**5})
    )
    if keys is None:
        return lambda: limiter.limit("key")
    following = iter(keys)
    return lambda: limiter.limit(next(following))


def pyrate_of(amount: int) -> Operation:
    pyrate = import_module("pyrate_limiter")
    limiter = pyrate.Limiter(pyrate.Rate(amount, pyrate.Duration.SECOND if amount > 1 else pyrate.Duration.HOUR))
    return lambda: limiter.try_acquire("key", blocking=False)


def keyed_of(amount: int, keys: list[str]) -> Operation:
    buckets, following = KeyedTokenBucket(amount), iter(keys)
    return lambda: buckets.try_acquire(next(following))


def exhausted(make: Callable[[], Operation]) -> Operation:
    """The operation once its one token is gone."""
    operation = make()
    operation()
    return operation


def bucket_of(amount: int) -> Operation:
    return TokenBucket(amount if amount > 1 else 0, amount).try_acquire


def sync_contests(calls: int) -> dict[str, Contest]:
    keys = [SOURCES[number % len(SOURCES)] for number in range(calls)]

    def one_limit(amount: int) -> dict[str, Callable[[], Operation]]:
        return {
            "esockd-ratelimit TokenBucket": lambda: bucket_of(amount),
            "a bare GCRA": lambda: BareGcra(amount, amount).try_acquire,
            "limits FixedWindow": lambda: limits_of("FixedWindowRateLimiter", amount),
            "limits SlidingWindowCounter": lambda: limits_of("SlidingWindowCounterRateLimiter", amount),
            "limits MovingWindow": lambda: limits_of("MovingWindowRateLimiter", amount),
            "pyrate-limiter": lambda: pyrate_of(amount),
            "throttled-py token_bucket": lambda: throttled_of("token_bucket", amount),
            "throttled-py gcra": lambda: throttled_of("gcra", amount),
        }

    refused: Contest = {name: partial(exhausted, make) for name, make in one_limit(1).items()}
    keyed: Contest = {
        "esockd-ratelimit KeyedTokenBucket": lambda: keyed_of(PLENTY, keys),
        "limits FixedWindow": lambda: limits_of("FixedWindowRateLimiter", PLENTY, keys),
        "limits MovingWindow": lambda: limits_of("MovingWindowRateLimiter", PLENTY, keys),
        "throttled-py token_bucket": lambda: throttled_of("token_bucket", PLENTY, keys),
        "throttled-py gcra": lambda: throttled_of("gcra", PLENTY, keys),
    }
    return {
        "one token, granted": one_limit(PLENTY),
        "one token, refused": refused,
        f"one token of one of {len(SOURCES):,} sources, granted": keyed,
    }


def cpu_ns(operation: Operation, calls: int) -> float:
    started = time.process_time_ns()
    for _ in range(calls):
        operation()
    return (time.process_time_ns() - started) / calls


async def async_cpu_ns(limiter: object, calls: int) -> float:
    acquire = limiter.acquire  # type: ignore[attr-defined]
    started = time.process_time_ns()
    for _ in range(calls):
        await acquire()
    return (time.process_time_ns() - started) / calls


async def scoped_cpu_ns(limiter: object, calls: int) -> float:
    """The same two cancel scopes deep, as in a task group with a timeout."""
    spent = 0.0
    with anyio.CancelScope(), anyio.CancelScope():
        spent += await async_cpu_ns(limiter, calls)
    return spent


def measure_sync(contest: Contest, rounds: int, calls: int) -> dict[str, list[float]]:
    results: dict[str, list[float]] = {name: [] for name in contest}
    for _ in range(rounds):
        for name, make in contest.items():
            results[name].append(cpu_ns(make(), calls))
    return results


def measure_async(rounds: int, calls: int) -> dict[str, list[float]]:
    def ours() -> object:
        return TokenBucket(PLENTY)

    def aiolimiter() -> object:
        return import_module("aiolimiter").AsyncLimiter(PLENTY, 1)

    contest = {
        "esockd-ratelimit TokenBucket": (async_cpu_ns, ours),
        "esockd-ratelimit TokenBucket, in two cancel scopes": (scoped_cpu_ns, ours),
        "aiolimiter": (async_cpu_ns, aiolimiter),
    }
    results: dict[str, list[float]] = {name: [] for name in contest}
    for _ in range(rounds):
        for name, (run, make) in contest.items():
            results[name].append(asyncio.run(run(make(), calls)))
    return results


def show(title: str, results: dict[str, list[float]]) -> None:
    medians = {name: statistics.median(values) for name, values in results.items()}
    ours = next(iter(medians.values()))
    print(f"\n| {title} | µs | ratio |\n|---|---:|---:|")
    for name, median in medians.items():
        print(f"| {name} | {median / 1000:.3f} | {median / ours:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25, help="interleaved rounds (25)")
    parser.add_argument("--calls", type=int, default=2000, help="calls of each limiter a round (2000)")
    options = parser.parse_args()
    versions = ", ".join(f"{peer} {version(peer)}" for peer in ["esockd-ratelimit", *PEERS])
    print(
        f"CPython {platform.python_version()}, {platform.system()} {platform.release().partition('-')[0]}; {versions}"
    )
    print(f"Median of {options.rounds} interleaved rounds of {options.calls} calls, CPU time of the process a call.")
    for title, contest in sync_contests(options.calls).items():
        show(title, measure_sync(contest, options.rounds, options.calls))
    show("`await acquire()` on asyncio, tokens there", measure_async(options.rounds, options.calls))


if __name__ == "__main__":
    main()
