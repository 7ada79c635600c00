"""Handlers run as tasks in which everything AnyIO has works as documented, whatever started the listener."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
import trio
from anyio.lowlevel import checkpoint
from tests.core.conftest import ASYNCIO_ONLY, Serve, receive_all

from esockd_core import CallbackHandler, Connection, ConnectionEvent, StreamConnection, open_listener

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio.abc import TaskStatus

pytestmark = pytest.mark.anyio

place: ContextVar[str] = ContextVar("place", default="nowhere")


async def answer_of(serve: Serve, handler: Callable[[StreamConnection], object]) -> bytes:
    """What a handler says to a client that says nothing; its errors fail the test."""
    async with serve(handler) as (listener, client):
        answer = await receive_all(client)
    assert listener.stats().shutdown_counts == {"normal": 1}
    return answer


async def test_deadlines_end_a_receive_and_the_handler_goes_on(serve: Serve) -> None:
    async def handle(connection: StreamConnection) -> None:
        with anyio.move_on_after(0.01) as scope:
            await connection.receive()
        assert scope.cancelled_caught
        with pytest.raises(TimeoutError):
            with anyio.fail_after(0.01):
                await connection.receive()
        with anyio.move_on_after(10) as outer:
            with anyio.move_on_after(0.01) as inner:
                async for _ in connection:
                    pytest.fail("there was nothing to receive")
            assert inner.cancelled_caught
            await checkpoint()
        assert not outer.cancelled_caught
        await connection.send(b"still here")

    assert await answer_of(serve, handle) == b"still here"


async def test_task_groups_run_cancel_and_collect_errors(serve: Serve) -> None:
    async def handle(connection: StreamConnection) -> None:
        async def start(*, task_status: TaskStatus[str]) -> None:
            task_status.started("started")
            await anyio.sleep_forever()

        async with anyio.create_task_group() as task_group:
            assert await task_group.start(start) == "started"
            task_group.start_soon(connection.receive)
            await checkpoint()
            task_group.cancel_scope.cancel()

        async def fail() -> None:
            raise LookupError

        with pytest.raises(ExceptionGroup) as raised:  # noqa: PT012
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(fail)
                await connection.receive()
        assert [type(error) for error in raised.value.exceptions] == [LookupError]
        await connection.send(b"still here")

    assert await answer_of(serve, handle) == b"still here"


async def test_a_shielded_scope_holds_within_a_cancelled_one(serve: Serve) -> None:
    async def handle(connection: StreamConnection) -> None:
        with anyio.CancelScope() as outer:
            outer.cancel()
            with anyio.CancelScope(shield=True):
                await connection.send(b"shielded ")
                await anyio.sleep(0.01)
                assert await connection.receive() == b"question"
            await connection.send(b"never")
            pytest.fail("a cancelled scope let a send through")
        await connection.send(b"after")

    async with serve(handle) as (listener, client):
        await client.send(b"question")
        assert await receive_all(client) == b"shielded after"
    assert listener.stats().shutdown_counts == {"normal": 1}


async def test_events_locks_and_streams_work_between_handlers(serve: Serve) -> None:
    lock = anyio.Lock()
    give, take = anyio.create_memory_object_stream[bytes]()

    async def handle(connection: StreamConnection) -> None:
        async with lock:
            event = anyio.Event()
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(give.send, b"from a task")
                task_group.start_soon(event.wait)
                await connection.send(await take.receive())
                event.set()

    assert await answer_of(serve, handle) == b"from a task"
    give.close()
    take.close()


async def test_threads_work_from_a_handler_and_back(serve: Serve) -> None:
    async def handle(connection: StreamConnection) -> None:
        def work() -> bool:
            anyio.from_thread.run(connection.send, b"from a thread")
            return threading.current_thread() is threading.main_thread()

        assert not await anyio.to_thread.run_sync(work)

    assert await answer_of(serve, handle) == b"from a thread"


@pytest.mark.parametrize("style", ["coroutine", "callback"])
async def test_a_handler_sees_the_context_of_the_listener_and_keeps_its_changes_to_itself(
    serve: Serve, style: str
) -> None:
    async def handle(connection: Connection) -> None:
        seen = place.get()
        place.set("changed")
        await checkpoint()
        await connection.send(seen.encode())

    class Handle(CallbackHandler):
        def connection_made(self, connection: StreamConnection) -> None:
            connection.send_nowait(place.get().encode())
            connection.close_nowait()

    place.set("the listener's")
    async with serve(handle if style == "coroutine" else Handle()) as (listener, client):
        assert listener.port is not None
        assert await receive_all(client) == b"the listener's"
        async with await anyio.connect_tcp("127.0.0.1", listener.port) as second:
            assert await receive_all(second) == b"the listener's"
    assert place.get() == "the listener's"


@ASYNCIO_ONLY
async def test_native_asyncio_tools_work_in_a_handler(serve: Serve) -> None:
    async def handle(connection: StreamConnection) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(0.01):
                await connection.receive()
        with suppress(TimeoutError):
            await asyncio.wait_for(connection.receive(), 0.01)
        async with asyncio.TaskGroup() as task_group:
            task_group.create_task(connection.send(b"a"))
        await asyncio.gather(connection.send(b"b"), asyncio.to_thread(int))
        with anyio.move_on_after(0.01):
            async with asyncio.timeout(10):
                await connection.receive()
        current = asyncio.current_task()
        assert current is not None
        assert current.cancelling() == 0
        await connection.send(b"c")

    assert await answer_of(serve, handle) == b"abc"


# Ending from outside


async def test_a_handler_is_told_and_can_say_goodbye_under_a_shield(serve: Serve) -> None:
    """Cancelled by a closing listener, it may take what time the grace leaves, on every backend."""

    async def handle(connection: StreamConnection) -> None:
        await connection.send(b"hello ")
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                for _ in range(6):  # longer than it takes to be cancelled again, far below the grace
                    await anyio.sleep(0.03)
                await connection.send(b"goodbye")

    async with serve(handle, shutdown_timeout=0) as (listener, client):
        assert await client.receive() == b"hello "
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(listener.close)
            assert await client.receive() == b"goodbye"
            with pytest.raises(anyio.BrokenResourceError):  # there may have been more to say, for all the client knows
                await client.receive()
            await client.aclose()
    assert listener.stats().shutdown_counts == {"shutdown": 1}


async def test_a_cancelled_handler_that_has_said_everything_ends_in_order_by_closing(serve: Serve) -> None:
    async def handle(connection: StreamConnection) -> None:
        async with connection:
            await connection.send(b"hello ")
            try:
                await anyio.sleep_forever()
            finally:
                connection.send_nowait(b"goodbye")

    async with serve(handle, shutdown_timeout=0) as (listener, client):
        assert await client.receive() == b"hello "
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(listener.close)
            assert await receive_all(client) == b"goodbye"
            await client.aclose()
    assert listener.stats().shutdown_counts == {"shutdown": 1}


async def test_a_cancelled_host_ends_handlers_and_their_tasks(serve: Serve) -> None:
    ended: list[str] = []
    ready = anyio.Event()

    async def child() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append("child")

    async def handle(connection: StreamConnection) -> None:
        try:
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(child)
                await checkpoint()
                ready.set()
                async for _ in connection:
                    pass
        finally:
            ended.append("handler")

    with anyio.fail_after(20), anyio.CancelScope() as host:
        async with open_listener("test", "127.0.0.1:0", handle) as listener:
            assert listener.port is not None
            async with await anyio.connect_tcp("127.0.0.1", listener.port):
                await ready.wait()
                host.cancel()
                await checkpoint()
    assert host.cancelled_caught
    assert ended == ["child", "handler"]
    assert listener.stats().shutdown_counts == {"shutdown": 1}
    assert listener.connections == ()


async def test_wait_draining_returns_when_the_listener_closes(serve: Serve) -> None:
    async def handle(connection: StreamConnection) -> None:
        await connection.send(b"hello")
        draining = [connection.draining]
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(connection.wait_draining)
            await connection.wait_draining()
        await connection.wait_draining()
        assert [*draining, connection.draining] == [False, True]
        await connection.send(b"bye")

    async with serve(handle) as (listener, client):
        assert await client.receive() == b"hello"
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(listener.close)
            assert await receive_all(client) == b"bye"
            await client.aclose()
    assert listener.stats().shutdown_counts == {"normal": 1}


def serve_one_in_plain_asyncio(handler: Callable[[StreamConnection], object] | CallbackHandler) -> list[str | None]:
    """Run a listener in `asyncio.run`, where nothing of AnyIO was set up, and return the reasons of its ends."""
    reasons: list[str | None] = []

    def note(event: ConnectionEvent) -> None:
        reasons.extend([event.reason] if event.kind == "connection_stopped" else [])

    async def main() -> None:
        async with open_listener("test", "127.0.0.1:0", handler, on_event=note) as listener:  # type: ignore[arg-type]
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
            received = 0
            while data := await reader.read(65_536):
                received += len(data)
            writer.close()
            await writer.wait_closed()
            assert received == 16 << 20

    asyncio.run(main())
    return reasons


class Pour(CallbackHandler):
    def connection_made(self, connection: StreamConnection) -> None:
        connection.send_nowait(bytes(16 << 20))
        connection.close_nowait()


async def pour(connection: StreamConnection) -> None:
    with anyio.move_on_after(10):
        await connection.send(bytes(16 << 20))


@pytest.mark.parametrize("handler", [pour, Pour()], ids=["coroutine", "callback"])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_both_styles_work_in_a_program_of_plain_asyncio(
    handler: Callable[[StreamConnection], object] | CallbackHandler,
) -> None:
    reasons = await anyio.to_thread.run_sync(serve_one_in_plain_asyncio, handler)
    assert reasons == ["normal"]


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_trios_own_tools_work_in_a_handler(serve: Serve) -> None:
    async def handle(connection: StreamConnection) -> None:
        with trio.move_on_after(0.01):
            await connection.receive()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.send, b"from a nursery")

    assert await answer_of(serve, handle) == b"from a nursery"
