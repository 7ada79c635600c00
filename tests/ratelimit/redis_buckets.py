"""Buckets on a server for one test each, and what the server tells of them."""

from __future__ import annotations

import itertools
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import redis

from esockd_ratelimit.redis import RedisTokenBucket

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.redis_server import RedisServer

NAMES = itertools.count()


def fresh_name() -> str:
    return f"bucket-{next(NAMES)}"


@asynccontextmanager
async def open_bucket(
    server: RedisServer, rate: float, burst: float, **options: Any
) -> AsyncIterator[RedisTokenBucket]:
    options = {"name": fresh_name(), "timeout": 20, **options}
    bucket = RedisTokenBucket(server.url, options.pop("name"), rate, burst, **options)
    try:
        with anyio.fail_after(40):
            yield bucket
    finally:
        await bucket.aclose()


def server_time_us(server: RedisServer) -> int:
    with redis.Redis.from_url(server.url) as client:
        seconds, us = client.time()
    return int(seconds) * 10**6 + int(us)


def script_runs(server: RedisServer) -> int:
    with redis.Redis.from_url(server.url) as client:
        return int(client.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"])


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - a server tells nobody; the deadline of open_bucket bounds it
        await anyio.sleep(0.001)
