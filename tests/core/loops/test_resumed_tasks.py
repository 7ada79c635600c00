"""Tasks of handlers that were resumed where their bytes came are cancelled and end as any task."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
from tests.core.conftest import ASYNCIO_ONLY, Serve, reasons, receive_all, settle, until
from tests.core.loops.resumed import ask, is_resumed

from esockd_core._loops.asyncio.stream import AsyncioStream

if TYPE_CHECKING:
    from esockd_core import StreamConnection

pytestmark = [pytest.mark.anyio, ASYNCIO_ONLY]


async def test_a_scope_ends_a_receive_and_the_handler_goes_on(serve: Serve) -> None:
    async def handle(connection: StreamConnection) -> None:
        await connection.send(b"ready")
        async for data in connection:
            assert is_resumed()
            with anyio.move_on_after(0.001) as scope:
                await connection.receive()
            assert scope.cancelled_caught
            assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]
            await connection.send(data)

    async with serve(handle) as (_, client):
        await client.receive()
        for question in (b"one", b"two", b"three"):
            assert await ask(client, question) == question


async def test_a_handler_that_cancels_itself_is_cancelled_in_its_next_receive(serve: Serve) -> None:
    async def handle(connection: StreamConnection) -> None:
        task = asyncio.current_task()
        assert task is not None
        await connection.send(b"ready")
        async for data in connection:
            assert is_resumed()
            task.cancel("by itself")
            with pytest.raises(asyncio.CancelledError, match="by itself"):
                await connection.receive()
            assert task.uncancel() == 0
            await connection.send(data)

    async with serve(handle) as (_, client):
        await client.receive()
        for question in (b"one", b"two", b"three"):
            assert await ask(client, question) == question


async def test_a_handler_that_takes_its_cancellation_back_goes_on_as_in_any_task(serve: Serve) -> None:
    """CPython 3.13 forgets a cancellation that was taken back, and before that delivers it."""

    async def handle(connection: StreamConnection) -> None:
        task = asyncio.current_task()
        assert task is not None
        await connection.send(b"ready")
        await connection.receive()
        assert is_resumed()
        task.cancel()
        task.uncancel()
        try:
            await connection.send(await connection.receive())
        except asyncio.CancelledError:
            assert sys.version_info < (3, 13)
            await connection.send(b"cancelled")

    async with serve(handle) as (listener, client):
        await client.receive()
        await client.send(b"one")
        await until(lambda: listener.connections[0].bytes_in == 3)
        await settle()
        assert await ask(client, b"two") == (b"two" if sys.version_info >= (3, 13) else b"cancelled")


async def test_bytes_that_come_after_a_cancellation_wait_until_it_is_delivered(serve: Serve) -> None:
    tasks: list[asyncio.Task[Any]] = []
    streams: list[AsyncioStream] = []

    async def handle(connection: StreamConnection) -> None:
        assert isinstance(connection, AsyncioStream)
        tasks.append(asyncio.current_task())  # type: ignore[arg-type]
        streams.append(connection)
        await connection.send(b"ready")
        with pytest.raises(asyncio.CancelledError, match="first"):
            await connection.receive()
        assert not is_resumed()
        await connection.send(await connection.receive())

    async with serve(handle) as (_, client):
        await client.receive()
        await settle()

        def cancel_and_feed() -> None:
            tasks[0].cancel("first")
            streams[0].data_received(b"kept")
            streams[0].data_received(b", and more")

        asyncio.get_running_loop().call_soon(cancel_and_feed)
        assert await client.receive() == b"kept, and more"


async def test_a_cancellation_reaches_what_a_resumed_handler_waits_for_instead(serve: Serve) -> None:
    tasks: list[asyncio.Task[Any]] = []
    waits: list[asyncio.Future[None]] = []

    async def handle(connection: StreamConnection) -> None:
        tasks.append(asyncio.current_task())  # type: ignore[arg-type]
        await connection.send(b"ready")
        await connection.receive()
        waits.append(asyncio.get_running_loop().create_future())
        try:
            await waits[0]
        except asyncio.CancelledError as error:
            await connection.send(str(error.args).encode())
            raise

    async with serve(handle) as (listener, client):
        await client.receive()
        await client.send(b"x")
        await until(lambda: waits)
        await settle()
        assert tasks[0].cancel("from outside")
        assert waits[0].cancelled()
        assert await client.receive() == b"('from outside',)"
        assert await reasons(listener) == {"killed": 1}
        assert tasks[0].cancelled()


async def test_what_a_resumed_handler_waited_for_arrives_though_its_scope_was_cancelled_since(serve: Serve) -> None:
    """AnyIO cancels no task whose future is done; the task's next wait is cancelled."""
    waits: list[asyncio.Future[str]] = []
    scopes: list[anyio.CancelScope] = []

    async def handle(connection: StreamConnection) -> None:
        await connection.send(b"ready")
        await connection.receive()
        with anyio.CancelScope() as scope:
            scopes.append(scope)
            waits.append(asyncio.get_running_loop().create_future())
            connection.send_nowait((await waits[0]).encode())
            await anyio.sleep_forever()
        await connection.send(b", and then a cancellation")

    def settle_and_cancel() -> None:
        waits[0].set_result("a result")
        scopes[0].cancel()

    async with serve(handle) as (listener, client):
        await client.receive()
        await client.send(b"x")
        await until(lambda: waits)
        asyncio.get_running_loop().call_soon(settle_and_cancel)
        assert await receive_all(client) == b"a result, and then a cancellation"
        assert await reasons(listener) == {"normal": 1}


async def test_bytes_that_came_in_the_step_of_a_task_arrive_though_a_scope_was_cancelled_since(serve: Serve) -> None:
    streams: list[AsyncioStream] = []
    scopes: list[anyio.CancelScope] = []

    async def handle(connection: StreamConnection) -> None:
        assert isinstance(connection, AsyncioStream)
        streams.append(connection)
        with anyio.CancelScope() as scope:
            scopes.append(scope)
            await connection.send_eof()
            await connection.receive()
            streams.clear()
            await anyio.sleep_forever()

    async with serve(handle) as (listener, client):
        await receive_all(client)
        await settle()
        streams[0].data_received(b"x")
        scopes[0].cancel()
        assert await reasons(listener) == {"normal": 1}
        assert not streams


async def test_a_cancellation_that_is_pending_can_be_seen(serve: Serve) -> None:
    tasks: list[asyncio.Task[Any]] = []

    async def handle(connection: StreamConnection) -> None:
        tasks.append(asyncio.current_task())  # type: ignore[arg-type]
        await connection.send(b"ready")
        async for _ in connection:
            assert is_resumed()

    async with serve(handle) as (listener, client):
        await client.receive()
        await client.send(b"x")
        await until(lambda: listener.connections[0].bytes_in)
        (info,) = (each for each in anyio.get_running_tasks() if each.id == id(tasks[0]))
        assert not info.has_pending_cancellation()
        tasks[0].cancel()
        assert info.has_pending_cancellation()
        assert await reasons(listener) == {"killed": 1}


async def test_a_cancellation_does_not_reach_what_a_resumed_handler_shields(serve: Serve) -> None:
    tasks: list[asyncio.Task[Any]] = []
    inner: list[asyncio.Future[None]] = []

    async def handle(connection: StreamConnection) -> None:
        tasks.append(asyncio.current_task())  # type: ignore[arg-type]
        await connection.send(b"ready")
        await connection.receive()
        inner.append(asyncio.get_running_loop().create_future())
        await asyncio.shield(inner[0])

    async with serve(handle) as (listener, client):
        await client.receive()
        await client.send(b"x")
        await until(lambda: inner)
        tasks[0].cancel()
        assert await reasons(listener) == {"killed": 1}
        assert not inner[0].done()


@pytest.mark.parametrize("after", ["a receive", "a sleep"])
async def test_a_killed_handler_ends_whatever_it_was_resumed_to(serve: Serve, after: str) -> None:
    async def handle(connection: StreamConnection) -> None:
        await connection.send(b"ready")
        await connection.receive()
        await connection.send(b"taken")
        await (connection.receive() if after == "a receive" else anyio.sleep_forever())

    async with serve(handle) as (listener, client):
        await client.receive()
        assert await ask(client) == b"taken"
        assert await listener.kill_connections("127.0.0.0/8") == 1
        assert await reasons(listener) == {"killed": 1}


async def test_a_resumed_handler_that_returns_ends_its_task(serve: Serve) -> None:
    tasks: list[asyncio.Task[Any]] = []

    async def handle(connection: StreamConnection) -> str:
        tasks.append(asyncio.current_task())  # type: ignore[arg-type]
        await connection.send(b"ready")
        await connection.send(await connection.receive())
        assert is_resumed()
        return "said"

    async with serve(handle) as (listener, client):
        await client.receive()
        assert await ask(client) == b"?\n"
        assert await receive_all(client) == b""
        assert await reasons(listener) == {"normal": 1}
        assert await tasks[0] == "said"


async def test_an_error_of_a_resumed_handler_is_logged_with_the_trace_of_its_own_code(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    tasks: list[asyncio.Task[Any]] = []

    async def handle(connection: StreamConnection) -> None:
        tasks.append(asyncio.current_task())  # type: ignore[arg-type]
        await connection.send(b"ready")
        await connection.receive()
        assert is_resumed()
        raise LookupError("in the handler")

    with caplog.at_level(logging.ERROR):
        async with serve(handle) as (listener, client):
            await client.receive()
            await client.send(b"x")
            assert await reasons(listener) == {"handler_error": 1}
    (record,) = caplog.records
    assert "in the handler" in record.message
    error = tasks[0].exception()
    assert isinstance(error, LookupError)
    assert error.__traceback__ is not None
    assert error.__traceback__.tb_frame.f_code.co_name == "handle"
    assert error.__context__ is None


@pytest.mark.parametrize("how", ["raised", "asked for"])
async def test_a_resumed_handler_that_ends_by_its_own_cancellation_ends_as_any_task(serve: Serve, how: str) -> None:
    tasks: list[asyncio.Task[Any]] = []

    async def handle(connection: StreamConnection) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        await connection.send(b"ready")
        await connection.receive()
        assert is_resumed()
        if how == "raised":
            raise asyncio.CancelledError
        task.cancel()  # and returns before it is delivered

    async with serve(handle) as (listener, client):
        await client.receive()
        await client.send(b"x")
        assert await reasons(listener) == {"handler_error" if how == "raised" else "killed": 1}
        assert tasks[0].cancelled()
