"""Leases: however many processes hold some, and whatever happens to them and to the server, the bound holds."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from contextlib import AsyncExitStack
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Self, cast

import anyio
import anyio.lowlevel
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from esockd_ratelimit import InvalidOption
from esockd_ratelimit.redis import RedisTokenBucket, ServerAway
from esockd_ratelimit.redis._script import SCRIPT

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.redis_server import RedisServer

US = 10**6
START_US = 1_900_000_000 * US
# The real script, by a clock that the test moves. The expiry of keys is by the server's own: it is left out.
TIMED_SCRIPT = SCRIPT.replace("redis.call('TIME')", "{ARGV[6], ARGV[7]}").replace(
    "if per_us > 0 then\n        redis.call('PEXPIRE'", "if false then\n        redis.call('PEXPIRE'"
)
NAMES = itertools.count()


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(40):
        while not condition():  # noqa: ASYNC110 - a server tells nobody
            await anyio.sleep(0.001)


class Network:
    """A client of a real server, under a clock that the test moves, and with faults that the test asks for."""

    def __init__(self, client: redis.Redis) -> None:
        self.now_us = START_US
        self.fault = ""
        self._script = client.register_script(TIMED_SCRIPT)
        self._calls: list[tuple[Any, ...]] = []

    def pipeline(self, *, transaction: bool) -> Self:
        assert not transaction
        return self

    def __enter__(self) -> Self:
        self._calls = []
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def evalsha(self, _: str, keys: int, *arguments: Any) -> None:
        assert keys == 1
        self._calls.append(arguments)

    def execute(self, *, raise_on_error: bool) -> list[Any]:
        assert not raise_on_error
        fault, self.fault = self.fault, ""
        if fault == "request lost":
            raise redis.ConnectionError(fault)
        answers = [
            self._script(keys=[key], args=[*arguments, *divmod(self.now_us, US)]) for key, *arguments in self._calls
        ]
        if fault == "answer lost":
            raise redis.TimeoutError(fault)
        return answers

    def close(self) -> None:
        pass


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("pass"), st.sampled_from([1, 50_000, 333_333, 1_000_000, 7_000_000])),
        st.tuples(st.sampled_from(["try", "take"]), st.integers(0, 2)),
        st.tuples(st.sampled_from(["try", "take"]), st.integers(0, 2)),
        st.tuples(st.sampled_from(["die", "leave"]), st.integers(0, 2)),
        st.tuples(st.just("fault"), st.sampled_from(["request lost", "answer lost"])),
    ),
    max_size=40,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(
    rate=st.sampled_from([Fraction(0), Fraction(1, 3), Fraction(2), Fraction(20)]),
    burst=st.integers(1, 12),
    lease=st.integers(1, 12),
    steps=STEPS,
)
def test_in_every_stretch_of_time_no_more_is_granted_than_rate_burst_and_leases_allow(
    shared_redis: RedisServer, rate: Fraction, burst: int, lease: int, steps: list[tuple[str, Any]]
) -> None:
    """Processes come, die with their leases or give them back, and requests and answers are lost."""
    lease = min(lease, burst)
    name = f"lease-{next(NAMES)}"
    grants: list[int] = []

    def bucket() -> RedisTokenBucket:
        return RedisTokenBucket(
            cast("redis.Redis", network), name, rate, burst, lease=lease, retry_interval=1e-9, when_away="closed"
        )

    async def run() -> None:
        async with AsyncExitStack() as stack:
            holders = [await stack.enter_async_context(bucket()) for _ in range(3)]
            for step, value in steps:
                match step:
                    case "pass":
                        network.now_us += value
                    case "try":
                        grants.extend([network.now_us] * holders[value].try_acquire())
                    case "take":
                        grants.extend([network.now_us] * await holders[value].take())
                    case "die":  # nobody hears of its lease again
                        holders[value] = await stack.enter_async_context(bucket())
                    case "leave":
                        await holders[value].aclose()
                    case "fault":
                        network.fault = value
                assert all(holder.leased <= lease for holder in holders)
            network.fault = ""

    with redis.Redis.from_url(shared_redis.url) as client:
        network = Network(client)
        anyio.run(run)
    deaths = sum(step == "die" for step, _ in steps)
    assert len(grants) <= burst + rate * Fraction(network.now_us - START_US, US)  # no lease was there before
    for first, last in itertools.combinations(range(len(grants)), 2):
        elapsed_s = Fraction(grants[last] - grants[first], US)
        assert last - first + 1 <= burst + rate * elapsed_s + (3 + deaths) * lease


@pytest.mark.anyio
async def test_wait_time_is_zero_only_if_a_token_is_in_stock(own_redis: RedisServer) -> None:
    """A listener that leaves clients in the kernel's queue takes one whenever it is zero."""
    async with RedisTokenBucket(own_redis.url, "stock", 0, 4, lease=2, timeout=20) as bucket:
        for _ in range(4):
            await until(lambda: bucket.wait_time() == 0.0)
            assert bucket.try_acquire()
        assert bucket.wait_time() > 0
        assert not bucket.try_acquire()
    own_redis.kill()
    for when_away in ("closed", "local"):
        async with RedisTokenBucket(own_redis.url, "b", 0, 2, when_away=when_away, retry_interval=1e-9) as bucket:
            while bucket.wait_time() == 0.0:
                assert bucket.try_acquire()
            assert not bucket.try_acquire()


@pytest.mark.anyio
async def test_stock_that_was_empty_at_the_start_is_filled_although_nobody_asks(shared_redis: RedisServer) -> None:
    name = f"lease-{next(NAMES)}"
    async with (
        RedisTokenBucket(shared_redis.url, name, 5, 1, timeout=20) as other,
        RedisTokenBucket(shared_redis.url, name, 5, 1, timeout=20) as bucket,
    ):
        assert other.leased == 1
        assert bucket.leased == 0
        await until(lambda: bucket.wait_time() == 0.0)
        assert bucket.try_acquire()


@pytest.mark.anyio
async def test_local_grants_each_process_its_share_while_the_server_is_away(own_redis: RedisServer) -> None:
    own_redis.kill()
    shared: dict[str, Any] = {"when_away": "local", "retry_interval": 600.0}
    for processes, expected in ((1, 12), (4, 3), (100, 1)):
        async with RedisTokenBucket(own_redis.url, "b", 0, 12, lease=12, processes=processes, **shared) as bucket:
            assert sum(bucket.try_acquire() for _ in range(20)) == expected
            assert not bucket.try_acquire(12)  # more than its share ever holds
            assert bucket.wait_time(12) > 0
    with pytest.raises(InvalidOption, match="processes"):
        RedisTokenBucket(own_redis.url, "b", 1, processes=0)


@pytest.mark.anyio
async def test_each_change_between_away_and_back_is_told_once(own_redis: RedisServer) -> None:
    told: list[ServerAway | None] = []
    bucket = RedisTokenBucket(own_redis.url, "b", 100, 100, timeout=20, retry_interval=0.01, on_change=told.append)
    async with bucket:
        await until(bucket.try_acquire)
        own_redis.kill()
        await until(lambda: not bucket.try_acquire() and bool(told))
        await anyio.to_thread.run_sync(own_redis.start)
        await until(bucket.try_acquire)
    assert isinstance(told[0], ServerAway)
    assert told[1:] == [None]


@pytest.mark.anyio
async def test_a_client_that_answers_nonsense_counts_as_a_server_that_is_away() -> None:
    class Nonsense(Network):
        def __init__(self) -> None:
            self._calls = []

        def execute(self, *, raise_on_error: bool) -> list[Any]:
            assert not raise_on_error
            return ["nonsense"]

    async with RedisTokenBucket(cast("redis.Redis", Nonsense()), "b", 1) as bucket:
        assert not bucket.try_acquire()
        assert bucket.away is not None


COMPETITOR = """
import json, sys, time
import anyio
from esockd_ratelimit.redis import RedisTokenBucket

async def main() -> None:
    url = sys.argv[2]
    counts = {"before": 0, "away": 0, "after": 0}
    async with RedisTokenBucket(url, "lease", 200, 100, lease=20, timeout=20, retry_interval=0.05) as bucket:
        print("begun", flush=True)
        phase, has_50 = "before", False
        while counts["after"] < 50:
            if phase == "before" and bucket.away:
                phase = "away"
                print("away", flush=True)
            elif phase == "away" and not bucket.away:
                phase = "after"
            counts[phase] += bucket.try_acquire()
            await anyio.sleep(0.0005)
            if counts["before"] == 50 and not has_50:
                has_50 = True
                print("has 50", flush=True)
    print(json.dumps(counts))

if sys.argv[1] == "trio":
    anyio.run(main, backend="trio")
else:
    anyio.run(main, backend_options={"use_uvloop": sys.argv[1] == "uvloop"})
"""


def test_competing_processes_stay_within_the_bound_with_the_server_killed_in_the_middle(own_redis: RedisServer) -> None:
    """Synchronous admission on each event loop. A server that is new starts with a full bucket: one burst more."""
    started_s = time.monotonic()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", COMPETITOR, backend, own_redis.url], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
        )
        for backend in ("asyncio", "uvloop", "trio")
    ]
    try:
        for process in processes:
            assert process.stdout
            assert process.stdout.readline() == b"begun\n"
            assert process.stdout.readline() == b"has 50\n"
        own_redis.kill()
        for process in processes:  # each has to see that, or it might find a new server without having missed the old
            assert process.stdout
            assert process.stdout.readline() == b"away\n"
        own_redis.start()
        outputs = [process.communicate(timeout=50)[0].splitlines()[-1] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    elapsed_s = time.monotonic() - started_s
    counts = [json.loads(output) for output in outputs]
    assert all(count["before"] >= 50 and count["after"] >= 50 for count in counts)
    assert all(count["away"] <= 20 for count in counts)  # nothing but what had been leased
    granted = sum(sum(count.values()) for count in counts)
    assert granted <= 2 * 100 + 200 * elapsed_s + 3 * 20


def test_what_a_killed_process_had_leased_is_never_granted_twice(shared_redis: RedisServer) -> None:
    program = (
        "import sys, time, anyio\n"
        "from esockd_ratelimit.redis import RedisTokenBucket\n"
        "async def main():\n"
        "    async with RedisTokenBucket(sys.argv[1], sys.argv[2], 0, 30, lease=10, timeout=20) as bucket:\n"
        "        assert bucket.try_acquire(3)\n"
        "        print(bucket.leased, flush=True)\n"
        "        await anyio.sleep_forever()\n"
        "anyio.run(main)\n"
    )
    name = f"lease-{next(NAMES)}"
    with subprocess.Popen(
        [sys.executable, "-c", program, shared_redis.url, name], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"7\n"
        process.kill()

    async def take_the_rest() -> int:
        bucket = RedisTokenBucket(shared_redis.url, name, 0, 30, timeout=20)
        return sum([await bucket.take() for _ in range(30)])

    assert anyio.run(take_the_rest) == 20
