"""A bucket a key on a server: by several holders, over one connection, with the server stopped, paused or new."""

from __future__ import annotations

import itertools
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
import redis

from esockd_ratelimit import (
    BurstExceeded,
    InvalidOption,
    InvalidRate,
    InvalidTokens,
    QueueFull,
    Rate,
    TokenBucket,
)
from esockd_ratelimit.redis import KeyedRedisTokenBucket, RedisTokenBucket

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.redis_server import RedisServer

pytestmark = pytest.mark.anyio
NAMES = itertools.count()


@asynccontextmanager
async def open_buckets(server: RedisServer, rate: Any, **options: Any) -> AsyncIterator[KeyedRedisTokenBucket]:
    options = {"name": f"keyed-{next(NAMES)}", "timeout": 20, **options}
    buckets = KeyedRedisTokenBucket(server.url, options.pop("name"), rate, **options)
    try:
        with anyio.fail_after(40):
            yield buckets
    finally:
        await buckets.aclose()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - a server tells nobody; the deadline of open_buckets bounds it
        await anyio.sleep(0.001)


async def test_each_key_has_a_bucket_of_its_own_that_all_holders_share(shared_redis: RedisServer) -> None:
    name = f"keyed-{next(NAMES)}"
    async with (
        open_buckets(shared_redis, "0/s burst 2", name=name) as one,
        open_buckets(shared_redis, Rate(0, 2), name=name) as other,
        open_buckets(shared_redis, "0/s burst 2") as stranger,
    ):
        answers = [await holder.take("alice") for holder in (one, other, one, other)]
        assert answers == [True, True, False, False]
        assert await one.take("bob", 2)
        assert await stranger.take("alice", 2)
        assert one.rate == Rate(0, 2)


async def test_two_hundred_users_at_once_are_served_over_one_connection(shared_redis: RedisServer) -> None:
    answers: list[tuple[int, bool]] = []
    with redis.Redis.from_url(shared_redis.url) as observer:
        before = {client["id"] for client in observer.client_list()}
        async with open_buckets(shared_redis, "5/min burst 2") as buckets:

            async def call(user: int) -> None:
                answers.extend([(user, await buckets.take(f"user-{user}")) for _ in range(3)])

            async with anyio.create_task_group() as tasks:
                for user in range(200):
                    tasks.start_soon(call, user)
            opened = [client for client in observer.client_list() if client["id"] not in before]
    assert len(opened) == 1
    assert sorted(answers) == sorted((user, answer) for user in range(200) for answer in (True, True, False))


async def test_what_is_asked_for_during_a_trip_goes_together_in_the_next(shared_redis: RedisServer) -> None:
    async with open_buckets(shared_redis, 1) as buckets, anyio.create_task_group() as tasks:
        trips: list[int] = []
        run = buckets._server.run

        async def counted(calls: Any) -> Any:
            trips.append(len(calls))
            return await run(calls)

        buckets._server.run = counted  # type: ignore[method-assign]
        for user in range(300):
            tasks.start_soon(buckets.take, user)
        await until(lambda: sum(trips) == 300)
        assert len(trips) <= 5
        assert max(trips) == 128


async def test_sources_of_one_ipv6_network_are_one_key(shared_redis: RedisServer) -> None:
    async with open_buckets(shared_redis, 0, burst=1) as buckets:
        assert await buckets.take("2001:db8::1")
        assert not await buckets.take("2001:db8::2")
        assert await buckets.take("2001:db8:1::1")
        assert await buckets.take("192.0.2.1")
        assert not await buckets.take("::ffff:192.0.2.1")


async def test_keys_are_text_bytes_or_numbers_of_any_length(shared_redis: RedisServer) -> None:
    name = f"keyed-{next(NAMES)}"
    async with open_buckets(shared_redis, 0, burst=1, name=name) as buckets:
        key: Any
        for key in ("\udc80 \r\n:", b"\0\xff", 5, "u" * 10**5, "v" * 10**5, "blake2b:" + "0" * 32):
            assert await buckets.take(key)
            assert not await buckets.take(key)
        for key in (None, ("a", "b"), 1.5):
            with pytest.raises(InvalidOption, match=r"^key is "):
                await buckets.take(key)
    with redis.Redis.from_url(shared_redis.url) as observer:
        keys: Any = observer.keys(f"esockd:ratelimit:{name}:*")
        assert len(keys) == 6
        assert max(map(len, keys)) < 200


async def test_a_mapping_of_ones_own_says_what_is_limited(shared_redis: RedisServer) -> None:
    async with open_buckets(shared_redis, 0, burst=1, key=lambda user: str(user).lower()) as buckets:
        assert await buckets.take("Alice")
        assert not await buckets.take("alice")


async def test_acquire_waits_in_turn_for_each_key_and_holds_up_no_other(shared_redis: RedisServer) -> None:
    served: list[int] = []
    async with open_buckets(shared_redis, 100, burst=1) as buckets:

        async def call(number: int) -> None:
            await buckets.acquire("alice")
            served.append(number)

        await buckets.acquire("alice")
        async with anyio.create_task_group() as tasks:
            for number in range(4):
                tasks.start_soon(call, number)
                await until(lambda number=number: buckets.waiters + len(served) > number)  # type: ignore[misc]
            assert await buckets.take("bob")
        assert served == [0, 1, 2, 3]
        assert buckets.waiters == 0


async def test_take_neither_overtakes_nor_waits_for_a_caller_who_waits_for_the_key(shared_redis: RedisServer) -> None:
    async with open_buckets(shared_redis, 0.01, burst=5) as buckets, anyio.create_task_group() as tasks:
        assert await buckets.take("alice", 4)
        tasks.start_soon(buckets.acquire, "alice", 5)
        await until(lambda: buckets.waiters == 1)
        assert not await buckets.take("alice")
        assert await buckets.take("alice", 0)
        await buckets.acquire("alice", 0)
        assert await buckets.take("bob", 5)
        tasks.cancel_scope.cancel()
    assert buckets.waiters == 0


async def test_a_caller_cancelled_at_any_moment_leaves_its_token_to_others(shared_redis: RedisServer) -> None:
    name = f"keyed-{next(NAMES)}"
    granted: list[int] = []
    async with open_buckets(shared_redis, 0, burst=1000, name=name) as buckets, anyio.create_task_group() as tasks:

        async def call(number: int, scope: anyio.CancelScope) -> None:
            with scope:
                assert await buckets.take("alice")
                granted.append(number)

        for number in range(200):
            scope = anyio.CancelScope()
            tasks.start_soon(call, number, scope)
            if number % 2:
                await anyio.lowlevel.checkpoint()
            if number % 3 == 0:
                tasks.start_soon(cancel_later, scope, number // 3)
    assert 133 <= len(granted) <= 200
    assert not buckets._asked
    async with open_buckets(shared_redis, 0, burst=1000, name=name) as buckets:
        assert await buckets.take("alice", 1000 - len(granted))
        assert not await buckets.take("alice")


async def cancel_later(scope: anyio.CancelScope, turns: int) -> None:
    for _ in range(turns):
        await anyio.lowlevel.checkpoint()
    scope.cancel()


async def test_a_caller_cancelled_during_its_trip_or_before_it_gets_nothing_and_costs_nothing(
    shared_redis: RedisServer,
) -> None:
    name = f"keyed-{next(NAMES)}"
    async with open_buckets(shared_redis, 0, burst=3, name=name) as buckets, anyio.create_task_group() as tasks:
        run, gates = buckets._server.run, [anyio.Event(), anyio.Event(), anyio.Event()]
        trips: list[list[Any]] = []

        async def gated(calls: Any) -> Any:
            trips.append(calls)
            answers = await run(calls)
            await gates[len(trips) - 1].wait()
            return answers

        buckets._server.run = gated  # type: ignore[method-assign]
        tasks.start_soon(buckets.take, "bob")
        await until(lambda: len(trips) == 1)
        tasks.start_soon(buckets.take, "carol")  # makes the second trip, with the other two in it
        scopes = [anyio.CancelScope() for _ in range(2)]

        async def call(scope: anyio.CancelScope) -> None:
            with scope:
                await buckets.take("alice")

        for number, scope in enumerate(scopes):
            tasks.start_soon(call, scope)
            await until(lambda number=number: len(buckets._asked) == 3 + number)  # type: ignore[misc]
        scopes[0].cancel()
        await until(lambda: len(buckets._asked) == 3)
        gates[0].set()
        await until(lambda: len(trips) == 2)
        scopes[1].cancel()
        await until(lambda: len(buckets._asked) == 1)
        for gate in gates[1:]:
            gate.set()
    assert [[call.key.rpartition(b":")[2] for call in calls] for calls in trips] == [
        [b"bob"],
        [b"carol", b"alice"],
        [b"alice"],  # gives back
    ]
    async with open_buckets(shared_redis, 0, burst=3, name=name) as buckets:
        assert await buckets.take("alice", 3)


async def test_the_queue_is_bounded_over_all_keys(shared_redis: RedisServer) -> None:
    async with open_buckets(shared_redis, 0, burst=1, max_waiters=1) as buckets, anyio.create_task_group() as tasks:
        assert await buckets.take("alice")
        assert await buckets.take("bob")
        tasks.start_soon(buckets.acquire, "alice")
        await until(lambda: buckets.waiters == 1)
        with pytest.raises(QueueFull):
            await buckets.acquire("bob")
        tasks.cancel_scope.cancel()


async def test_requests_that_make_no_sense_are_refused_by_their_own_errors(shared_redis: RedisServer) -> None:
    async with open_buckets(shared_redis, 0, burst=3) as buckets:
        for error, n in ((BurstExceeded, 4), (InvalidTokens, -1)):
            with pytest.raises(error):
                await buckets.take("alice", n)
            with pytest.raises(error):
                await buckets.acquire("alice", n)


@pytest.mark.parametrize(
    ("option", "value"),
    [("when_away", "panic"), ("timeout", 0), ("retry_interval", None), ("max_waiters", -1), ("rate", "fast")],
)
def test_options_out_of_range_are_refused(option: str, value: Any) -> None:
    with pytest.raises(InvalidRate if option == "rate" else InvalidOption) as raised:
        KeyedRedisTokenBucket("redis://localhost", "name", **{"rate": 1, option: value})
    assert (raised.value.option, raised.value.value) == (option, value)


@pytest.mark.parametrize(("when_away", "expected"), [("open", 5), ("closed", 0), ("local", 2)])
async def test_without_the_server_the_answer_is_by_choice(
    own_redis: RedisServer, when_away: str, expected: int
) -> None:
    own_redis.stop()
    async with open_buckets(own_redis, 0, burst=2, when_away=when_away, retry_interval=600) as buckets:
        assert sum([await buckets.take("alice") for _ in range(5)]) == expected
        assert sum([await buckets.take("bob") for _ in range(5)]) == expected
        assert "ConnectionError" in str(buckets.away)


async def test_a_server_that_was_started_again_is_used_again(own_redis: RedisServer) -> None:
    async with open_buckets(own_redis, 0, burst=1, retry_interval=0.01) as buckets:
        assert await buckets.take("alice")
        own_redis.stop()
        assert not await buckets.take("alice")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(buckets.acquire, "alice")
            await until(lambda: buckets.waiters == 1)
            await anyio.to_thread.run_sync(own_redis.start)
        assert buckets.away is None
        assert not await buckets.take("alice")


async def test_local_buckets_are_waited_for_and_the_server_is_asked_again_meanwhile(own_redis: RedisServer) -> None:
    own_redis.stop()
    async with open_buckets(own_redis, 0, burst=1, when_away="local", retry_interval=0.01) as buckets:
        await buckets.acquire("alice")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(buckets.acquire, "alice")
            await until(lambda: buckets.waiters == 1)
            await anyio.to_thread.run_sync(own_redis.start)
        assert buckets.away is None


async def test_a_server_that_refuses_the_script_is_away(own_redis: RedisServer) -> None:
    with redis.Redis.from_url(own_redis.url) as client:
        client.set("esockd:ratelimit:mine:alice", "not a bucket")
    async with open_buckets(own_redis, 0, burst=1, name="mine") as buckets:
        assert not await buckets.take("alice")
        assert "WRONGTYPE" in str(buckets.away)
    bucket = RedisTokenBucket(own_redis.url, "mine:alice", 1)
    assert not await bucket.take()
    await bucket.aclose()


async def test_what_a_key_takes_a_single_bucket_of_that_name_takes_too(shared_redis: RedisServer) -> None:
    name = f"keyed-{next(NAMES)}"
    async with open_buckets(shared_redis, 0, burst=2, name=name) as buckets:
        assert await buckets.take("alice")
        single = RedisTokenBucket(shared_redis.url, f"{name}:alice", TokenBucket(0, 2).rate, timeout=20)
        assert [await single.take(), await single.take()] == [True, False]
        await single.aclose()
