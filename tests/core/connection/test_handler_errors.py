"""Errors of handlers: each ends its own connection only, is logged once, and is counted."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from tests.core.conftest import ASYNCIO_ONLY, Serve, connect_stream, reasons, receive_all
from tests.core.connection.conftest import Ends, Silent, raw

from esockd_core import CallbackHandler, Handler, InvalidOption, Listener, StreamConnection

pytestmark = pytest.mark.anyio


async def fail(connection: StreamConnection) -> None:
    await connection.receive()
    raise KeyError("no such key")


async def fail_after_closing(connection: StreamConnection) -> None:
    await connection.receive()
    await connection.aclose()
    raise KeyError("no such key")


async def fail_in_a_task(connection: StreamConnection) -> None:
    async with anyio.create_task_group() as task_group:
        task_group.start_soon(fail, connection)


NOTHING: dict[str, Any] = {}


class Failing(CallbackHandler):
    def data_received(self, connection: StreamConnection, data: bytes) -> None:
        raise KeyError("no such key")


@pytest.mark.parametrize(
    "handler", [fail, fail_after_closing, fail_in_a_task, lambda _: NOTHING["no such key"], Failing()]
)
async def test_an_error_of_a_handler_ends_its_own_connection_is_logged_once_and_counted(
    serve: Serve, handler: Handler, caplog: pytest.LogCaptureFixture
) -> None:
    ends = Ends()
    async with serve(handler, on_event=ends) as (listener, client):
        port = raw(client).getsockname()[1]
        with suppress(anyio.BrokenResourceError):
            await client.send(b"go")
        assert await receive_all(client) == b""
        await client.aclose()
        await ends.ended.wait()
        assert listener.state == "running"
    assert ends.reasons == ["handler_error"]
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert f"('127.0.0.1', {port})" in record.getMessage()
    assert "no such key" in caplog.text


async def cancel_itself(connection: StreamConnection) -> None:
    await connection.receive()
    raise asyncio.CancelledError


async def cancel_its_own_task(connection: StreamConnection) -> None:
    await connection.receive()
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(10)


async def cancel_in_a_group(connection: StreamConnection) -> None:
    await connection.receive()
    raise BaseExceptionGroup("two", [asyncio.CancelledError(), asyncio.CancelledError()])


class CancellingItself(CallbackHandler):
    def data_received(self, connection: StreamConnection, data: bytes) -> None:
        raise asyncio.CancelledError


async def counted(serve: Serve, handler: Handler) -> dict[str, int]:
    async with serve(handler) as (listener, client):
        with suppress(anyio.BrokenResourceError):
            await client.send(b"go")
        with suppress(anyio.BrokenResourceError):
            await receive_all(client)
        await client.aclose()
        return await reasons(listener)


@pytest.mark.parametrize("handler", [cancel_itself, cancel_in_a_group, CancellingItself()])
async def test_a_cancellation_that_nobody_asked_for_is_an_error_of_the_handler(
    serve: Serve, handler: Handler, caplog: pytest.LogCaptureFixture
) -> None:
    assert await counted(serve, handler) == {"handler_error": 1}
    (record,) = caplog.records
    assert "CancelledError" in record.getMessage()


@ASYNCIO_ONLY
async def test_a_handler_whose_task_somebody_cancels_is_killed_and_made_no_mistake(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    assert await counted(serve, cancel_its_own_task) == {"killed": 1}
    assert caplog.records == []


@pytest.mark.parametrize("wrong", [None, 5, Silent], ids=repr)
async def test_what_cannot_be_a_handler_is_refused_at_once(wrong: Handler) -> None:
    with pytest.raises(InvalidOption, match="takes a coroutine function, or an instance of CallbackHandler"):
        Listener("test", 0, wrong)


async def test_an_error_beside_a_cancellation_stays_with_its_connection() -> None:
    """A handler whose own task group fails while it is cancelled raises a group of both."""

    async def fail_in_cleanup() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise ValueError("cleanup")

    async def handle(connection: StreamConnection) -> None:
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(fail_in_cleanup)
            await connection.send(b"ready")
            await anyio.sleep_forever()

    listener = Listener("test", "127.0.0.1:0", handle)
    with anyio.fail_after(30):
        async with anyio.create_task_group() as host:
            await host.start(listener.run)
            async with await connect_stream(listener) as client:
                await client.receive()
                host.cancel_scope.cancel()
    assert listener.state == "closed"
    assert sum(listener.stats().shutdown_counts.values()) == 1
