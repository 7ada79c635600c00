"""A handler that was resumed where its bytes came cannot tell: what it may wait for, and what its task does then."""

from __future__ import annotations

import asyncio
import types
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
from tests.core.conftest import ASYNCIO_ONLY, Serve, connect_stream, reasons, settle
from tests.core.loops.resumed import ask, is_resumed, same_task
from tests.patience import PATIENCE_S

from esockd_core import StreamConnection, open_listener
from esockd_core._loops.asyncio.stream import AsyncioStream

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

pytestmark = [pytest.mark.anyio, ASYNCIO_ONLY]


@types.coroutine
def yields(what: object) -> Generator[object, None, None]:
    yield what


async def fails_soon() -> None:
    await asyncio.sleep(0)
    raise LookupError("of the child")


async def a_future_that_is_done() -> None:
    future = asyncio.get_running_loop().create_future()
    future.set_result(None)
    await future


async def a_child_that_fails() -> None:
    with pytest.raises(LookupError, match="of the child"):
        await asyncio.ensure_future(fails_soon())


async def a_group_whose_child_fails() -> None:
    async def wait_in_the_group() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fails_soon())
            await asyncio.sleep(PATIENCE_S)

    with pytest.raises(ExceptionGroup):
        await wait_in_the_group()


async def something_that_is_no_future() -> None:
    with pytest.raises(RuntimeError, match="bad yield"):
        await yields(42)


async def itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    with pytest.raises(RuntimeError, match="await"):
        await task


async def a_future_of_another_loop() -> None:
    other = asyncio.new_event_loop()
    try:
        with pytest.raises(RuntimeError, match="attached to a different loop"):
            await other.create_future()
    finally:
        other.close()


async def a_future_without_await() -> None:
    with pytest.raises(RuntimeError):
        await yields(asyncio.get_running_loop().create_future())


async def a_timeout() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await asyncio.Event().wait()
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]


async def a_scope_that_ends() -> None:
    with anyio.move_on_after(0.001) as scope:
        await anyio.sleep_forever()
    assert scope.cancelled_caught


async def a_scope_cancelled_before() -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await anyio.sleep_forever()
    assert scope.cancelled_caught


async def a_shielded_scope() -> None:
    with anyio.CancelScope() as outer:
        outer.cancel()
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.001)
        await anyio.lowlevel.checkpoint()
    assert outer.cancelled_caught


async def its_own_cancellation() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel("by itself")
    with pytest.raises(asyncio.CancelledError, match="by itself"):
        await asyncio.sleep(PATIENCE_S)
    assert task.uncancel() == 0


async def its_own_cancellation_as_it_only_yields() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel("by itself")
    with pytest.raises(asyncio.CancelledError, match="by itself"):
        await asyncio.sleep(0)
    assert task.uncancel() == 0


OTHERS: list[Callable[[], Coroutine[Any, Any, object]]] = [
    partial(asyncio.sleep, 0),
    partial(asyncio.sleep, 0.001),
    anyio.lowlevel.checkpoint,
    partial(anyio.to_thread.run_sync, int),
    a_future_that_is_done,
    a_child_that_fails,
    a_group_whose_child_fails,
    something_that_is_no_future,
    itself,
    a_future_of_another_loop,
    a_future_without_await,
    a_timeout,
    a_scope_that_ends,
    a_scope_cancelled_before,
    a_shielded_scope,
    its_own_cancellation,
    its_own_cancellation_as_it_only_yields,
]
DONE_AT_ONCE = (a_future_that_is_done, itself)  # which a task may await once only


def name_of(wait: Any) -> str:
    return str(getattr(wait, "__name__", None) or f"{wait.func.__name__} {wait.args[0]}")


@pytest.mark.parametrize("wait", OTHERS, ids=name_of)
async def test_a_resumed_handler_may_wait_for_anything(serve: Serve, wait: Any) -> None:
    async def handle(connection: StreamConnection) -> None:
        check = same_task()
        await connection.send(b"ready")
        async for data in connection:
            assert is_resumed()
            await wait()
            check()
            assert not is_resumed() or wait in DONE_AT_ONCE
            await connection.send(data)

    async with serve(handle) as (listener, client):
        await client.receive()
        for question in (b"one", b"two", b"three"):
            assert await ask(client, question) == question
        await client.send_eof()
        assert await reasons(listener) == {"normal": 1}


async def test_tools_see_the_handler_in_its_task(serve: Serve) -> None:
    streams: list[AsyncioStream] = []
    tasks: list[asyncio.Task[Any]] = []

    async def handle(connection: StreamConnection) -> None:
        assert isinstance(connection, AsyncioStream)
        streams.append(connection)
        tasks.append(asyncio.current_task())  # type: ignore[arg-type]
        await connection.send(b"ready")
        async for data in connection:
            assert asyncio.current_task() in asyncio.all_tasks()
            await connection.send(data)

    async with serve(handle) as (_, client):
        await client.receive()
        for _ in range(2):
            assert await ask(client) == b"?\n"
            await settle()
            assert not tasks[0].done()
            assert "async for data in connection" in streams[0].handler_stack()
            assert tasks[0].get_coro().__name__ == "handle"  # type: ignore[union-attr]
            assert anyio.get_running_tasks()
            await anyio.wait_all_tasks_blocked()


async def test_a_listener_in_a_program_that_ends_takes_its_handlers_along() -> None:
    ended: list[str] = []

    async def handle(connection: StreamConnection) -> None:
        try:
            async for data in connection:
                await connection.send(data)
        finally:
            ended.append("cancelled" if asyncio.current_task().cancelling() else "returned")  # type: ignore[union-attr]

    with anyio.move_on_after(PATIENCE_S) as scope:
        async with (
            open_listener("test", "127.0.0.1:0", handle) as listener,
            await connect_stream(listener) as client,
        ):
            assert await ask(client) == b"?\n"
            scope.cancel()
            await anyio.sleep_forever()
    assert len(ended) == 1
