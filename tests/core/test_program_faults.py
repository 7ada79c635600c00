"""A host program that is at fault, or in a hurry: what it gets, and what the listener goes on doing."""

from __future__ import annotations

import logging
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from esockd_core import Connection, InvalidOption, ListenerClosed, Server, open_listener

pytestmark = pytest.mark.anyio


async def echo(connection: Connection) -> None:
    async for data in connection:
        await connection.send(data)


class FaultyLimiter:
    """Its `wait_time` fails; its `try_acquire` works."""

    def try_acquire(self) -> bool:
        return True

    def wait_time(self) -> float:
        raise RuntimeError("the limiter's store is away")


async def test_a_limiter_that_cannot_tell_when_to_wait_leaves_the_verdict_to_its_other_answer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with anyio.fail_after(10):
        async with open_listener(
            "test", "127.0.0.1:0", echo, limiter=FaultyLimiter(), when_limited="backlog"
        ) as listener:
            assert listener.port is not None
            for _ in range(6):
                async with await anyio.connect_tcp("127.0.0.1", listener.port) as client:
                    await client.send(b"hello")
                    assert await client.receive() == b"hello"
            assert [acceptor.restarts for acceptor in listener.acceptors] == [0]
    assert "the limiter's store is away" in caplog.text
    assert listener.stats().accepted == 6


async def refuse_all(_: object) -> bool:
    return False


class AsynchronousLimiter:
    async def try_acquire(self) -> bool:
        return False

    async def wait_time(self) -> float:
        return 1.0


@pytest.mark.parametrize(
    "options", [{"load_hook": refuse_all}, {"limiter": AsynchronousLimiter()}], ids=["load_hook", "limiter"]
)
async def test_a_judge_that_is_a_coroutine_function_is_refused_because_it_would_admit_everybody(
    options: dict[str, Any],
) -> None:
    with pytest.raises(InvalidOption, match="coroutine function"):
        async with open_listener("test", "127.0.0.1:0", echo, **options):
            pass


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, ValueError])
async def test_what_the_block_of_a_listener_raises_arrives_as_it_is(kind: type[BaseException]) -> None:
    with pytest.raises(kind):
        async with open_listener("test", "127.0.0.1:0", echo):
            raise kind


async def test_a_server_that_ends_while_a_listener_opens_closes_it_too() -> None:
    with anyio.fail_after(10):
        async with anyio.create_task_group() as task_group, Server() as server:

            async def open_one() -> None:
                try:
                    await server.open("late", "localhost:0", echo)
                except ListenerClosed:
                    logging.getLogger(__name__).debug("the server was faster")

            task_group.start_soon(open_one)
            while not server.listeners():
                await anyio.lowlevel.checkpoint()
    assert server.listeners() == ()
