"""On asyncio and uvloop, bytes resume a waiting handler where they come; this is where they do, and where not."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
from tests.core.conftest import ASYNCIO_ONLY, Serve, connect_stream, settle, until
from tests.core.loops.resumed import ask, callers, is_resumed, same_task, times_resumed

from esockd_core._connection.face import READ_BYTES
from esockd_core._loops.asyncio.stream import AsyncioStream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from esockd_core import StreamConnection

pytestmark = [pytest.mark.anyio, ASYNCIO_ONLY]

HERE: ContextVar[str] = ContextVar("here", default="nowhere")


async def iterated(connection: StreamConnection) -> bytes:
    async for data in connection:
        return data
    raise anyio.EndOfStream


WAITS: list[Callable[[StreamConnection], Awaitable[bytes]]] = [
    iterated,
    lambda connection: connection.receive(),
    lambda connection: connection.receive_exactly(2),
    lambda connection: connection.receive_until(b"\n", 100),
    lambda connection: anext(connection.lines()),
]


@pytest.mark.parametrize("wait", WAITS, ids=["async for", "receive", "receive_exactly", "receive_until", "lines"])
async def test_every_kind_of_receive_is_resumed_where_its_bytes_come(serve: Serve, wait: Any) -> None:
    async def handle(connection: StreamConnection) -> None:
        check = same_task()
        await connection.send(b"ready")
        while True:
            await wait(connection)
            check()
            await connection.send(b"resumed" if is_resumed() else b"run by the loop")

    async with serve(handle) as (_, client):
        assert await client.receive() == b"ready"
        assert [await ask(client) for _ in range(3)] == [b"resumed"] * 3


async def test_a_thousand_messages_resume_a_handler_at_one_depth_of_the_stack(serve: Serve) -> None:
    depths = set()

    async def handle(connection: StreamConnection) -> None:
        await connection.send(b"ready")
        async for data in connection:
            depths.add(len(callers()))
            await connection.send(data)

    async with serve(handle) as (_, client):
        await client.receive()
        for _ in range(1000):
            await ask(client)
    assert len(depths) == 1


async def test_context_variables_of_a_handler_stay_its_own(serve: Serve) -> None:
    async def handle(connection: StreamConnection) -> None:
        assert HERE.get() == "nowhere"
        await connection.send(b"ready")
        name = await connection.receive()
        HERE.set(name.decode())
        async for _ in connection:
            assert is_resumed()
            await connection.send(HERE.get().encode())
            asyncio.get_running_loop().call_soon(partial(connection.send_nowait, b" later"))

    async with serve(handle) as (listener, first), await connect_stream(listener) as second:
        for client, name in ((first, b"one"), (second, b"two")):
            await client.receive()
            await client.send(name)
        await until(lambda: all(each.bytes_in == 3 for each in listener.connections))
        await settle()
        for client, name in ((first, b"one"), (second, b"two"), (first, b"one")):
            answer = await ask(client)
            while not answer.endswith(b" later"):
                answer += await client.receive()
            assert answer == name + b" later"
        assert HERE.get() == "nowhere"


async def receive_in_a_child(connection: StreamConnection) -> bytes:
    return await asyncio.ensure_future(connection.receive())


async def receive_in_a_group(connection: StreamConnection) -> bytes:
    received: list[bytes] = []

    async def receive() -> None:
        check = same_task()
        received.append(await connection.receive())
        check()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(receive)
    return received[0]


async def iterate_in_a_child(connection: StreamConnection) -> bytes:
    return await asyncio.create_task(anext(connection))


async def receive_in_an_eager_child(connection: StreamConnection) -> bytes:
    loop = asyncio.get_running_loop()
    return await asyncio.Task(connection.receive(), loop=loop, eager_start=True)  # type: ignore[call-arg]


CHILDREN = [
    receive_in_a_child,
    receive_in_a_group,
    iterate_in_a_child,
    *([receive_in_an_eager_child] if sys.version_info >= (3, 12) else []),
]


@pytest.mark.parametrize("receive", CHILDREN)
async def test_a_task_of_the_handler_may_be_the_one_that_is_resumed(serve: Serve, receive: Any) -> None:
    async def handle(connection: StreamConnection) -> None:
        check = same_task()
        await connection.send(b"ready")
        async for first in connection:
            assert is_resumed()
            await connection.send(first)
            second = await receive(connection)
            assert not is_resumed()  # the child was, and the loop runs whoever waits for it
            check()
            await connection.send(second)

    async with serve(handle) as (_, client):
        await client.receive()
        for question in (b"one", b"two", b"three", b"four"):
            assert await ask(client, question) == question


async def test_another_task_that_receives_is_cancelled_alone(serve: Serve) -> None:
    async def handle(connection: StreamConnection) -> None:
        await connection.send(b"ready")
        async for data in connection:
            child = asyncio.ensure_future(connection.receive())
            await asyncio.sleep(0)
            child.cancel()
            with pytest.raises(asyncio.CancelledError):
                await child
            assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]
            await connection.send(data)

    async with serve(handle) as (_, client):
        await client.receive()
        for question in (b"one", b"two", b"three"):
            assert await ask(client, question) == question


async def test_bytes_that_come_in_the_step_of_a_task_let_the_loop_run_the_handler(serve: Serve) -> None:
    streams: list[AsyncioStream] = []
    order: list[str] = []

    async def handle(connection: StreamConnection) -> None:
        assert isinstance(connection, AsyncioStream)
        streams.append(connection)
        await connection.send(b"ready")
        while True:
            data = await connection.receive()
            order.append(f"{data!r} {'resumed' if is_resumed() else 'run by the loop'}")

    async with serve(handle) as (_, client):
        await client.receive()
        await settle()
        streams[0].data_received(b"fed")
        order.append("fed")
        await until(lambda: len(order) == 2)
    assert order == ["fed", "b'fed' run by the loop"]


async def test_handlers_that_feed_each_other_are_not_run_within_each_other(serve: Serve) -> None:
    streams: list[AsyncioStream] = []
    depths: list[int] = []

    async def handle(connection: StreamConnection) -> None:
        assert isinstance(connection, AsyncioStream)
        streams.append(connection)
        async for data in connection:
            depths.append(times_resumed())
            if len(depths) < 200:
                for each in streams:
                    if each is not connection:
                        each.data_received(data)

    async with serve(handle) as (listener, first), await connect_stream(listener):
        await until(lambda: len(streams) == 2)
        await settle()
        await first.send(b"x")
        await until(lambda: len(depths) == 200)
    assert depths[0] == 1
    assert set(depths[1:]) == {0}


async def test_bytes_that_come_within_the_context_of_the_handler_let_the_loop_run_it(serve: Serve) -> None:
    """A context cannot be entered twice."""
    streams: list[AsyncioStream] = []

    async def handle(connection: StreamConnection) -> None:
        assert isinstance(connection, AsyncioStream)
        streams.append(connection)
        await connection.send(b"ready")
        while True:
            data = await connection.receive()
            await connection.send(data + (b" resumed" if is_resumed() else b" run by the loop"))

    async with serve(handle) as (_, client):
        await client.receive()
        await settle()
        feed = partial(streams[0].data_received, b"fed")
        ((_, context),) = streams[0]._receiver._callbacks
        asyncio.get_running_loop().call_soon(feed, context=context)
        assert await client.receive() == b"fed run by the loop"
        assert await ask(client, b"sent") == b"sent resumed"


async def test_a_large_read_takes_its_turn_in_the_loop(serve: Serve) -> None:
    """uvloop reads on within one wake-up while reads are full."""
    streams: list[AsyncioStream] = []

    async def handle(connection: StreamConnection) -> None:
        assert isinstance(connection, AsyncioStream)
        streams.append(connection)
        await connection.send(b"ready")
        while True:
            data = await connection.receive(READ_BYTES + 1)
            await connection.send(f"{len(data)} {is_resumed()}".encode())

    async with serve(handle) as (_, client):
        await client.receive()
        await settle()
        for size in (READ_BYTES, READ_BYTES + 1):
            asyncio.get_running_loop().call_soon(streams[0].data_received, bytes(size))
            assert await client.receive() == f"{size} {size == READ_BYTES}".encode()


async def test_a_large_read_behind_the_begin_of_a_message_takes_its_turn_in_the_loop_too(serve: Serve) -> None:
    streams: list[AsyncioStream] = []
    size = READ_BYTES + 1

    async def handle(connection: StreamConnection) -> None:
        assert isinstance(connection, AsyncioStream)
        streams.append(connection)
        await connection.send(b"ready")
        data = await connection.receive_exactly(1 + size)
        await connection.send(f"{len(data)} {is_resumed()}".encode())

    async with serve(handle) as (_, client):
        await client.receive()
        await settle()
        for part in (b"x", bytes(size)):
            asyncio.get_running_loop().call_soon(streams[0].data_received, part)
            await settle()
        assert await client.receive() == f"{1 + size} False".encode()


async def test_reads_within_one_wake_up_fill_the_buffer_once_whether_or_not_the_handler_waits(serve: Serve) -> None:
    streams: list[AsyncioStream] = []
    paused: list[bool] = []

    async def handle(connection: StreamConnection) -> None:
        assert isinstance(connection, AsyncioStream)
        streams.append(connection)
        await connection.send(b"ready")
        while True:
            data = await connection.receive(1_000_000)
            await connection.send(str(len(data)).encode())

    def read_on() -> None:
        while len(paused) < 3 and not streams[0]._reading_paused:
            streams[0].data_received(bytes(READ_BYTES + 1))
            paused.append(streams[0]._reading_paused)

    async with serve(handle) as (_, client):
        await client.receive()
        await settle()
        asyncio.get_running_loop().call_soon(read_on)
        assert await client.receive() == str(2 * (READ_BYTES + 1)).encode()
        assert paused == [False, True]
        assert await ask(client, b"sent") == b"4"  # reading goes on


def a_plain_task(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
    return asyncio.Task(coroutine, loop=loop, **options)


def a_task_in_python(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
    made: asyncio.Task[Any] = asyncio.tasks._PyTask(coroutine, loop=loop, **options)  # type: ignore[attr-defined]
    return made


class OwnTask(asyncio.Task[Any]):
    """A task of the program's own class."""


def a_task_of_its_own(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
    return OwnTask(coroutine, loop=loop, **options)


PROGRAMS: dict[str, Any] = {
    "in debug mode": None,
    "with a task factory": a_plain_task,
    "with tasks of its own class": a_task_of_its_own,
    "with tasks in Python": a_task_in_python,
}


@pytest.mark.parametrize("program", PROGRAMS)
async def test_handlers_are_resumed_in_any_program_but_in_debug_mode_and_with_tasks_in_python(
    serve: Serve, program: str
) -> None:
    resumes = program not in ("in debug mode", "with tasks in Python")

    async def handle(connection: StreamConnection) -> None:
        check = same_task()
        await connection.send(b"ready")
        async for data in connection:
            assert is_resumed() is resumes
            check()
            await connection.send(data)

    loop = asyncio.get_running_loop()
    factory: Any = loop.get_task_factory()
    if program == "in debug mode":
        loop.set_debug(True)
    else:
        loop.set_task_factory(PROGRAMS[program])
    try:
        async with serve(handle) as (_, client):
            await client.receive()
            for question in (b"one", b"two", b"three"):
                assert await ask(client, question) == question
    finally:
        loop.set_debug(False)
        loop.set_task_factory(factory)


class Wrapped(Coroutine[Any, Any, None]):
    """A coroutine that is not native, as Cython makes them."""

    def __init__(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._coroutine = coroutine

    def send(self, value: Any) -> Any:
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        return self._coroutine.throw(*error)

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Any:
        return self


async def test_a_coroutine_that_is_not_native_is_resumed_too(serve: Serve) -> None:
    async def handle(connection: StreamConnection) -> None:
        await connection.send(b"ready")
        async for data in connection:
            assert is_resumed()
            await connection.send(data)

    async with serve(lambda connection: Wrapped(handle(connection))) as (_, client):
        await client.receive()
        for question in (b"one", b"two"):
            assert await ask(client, question) == question
