"""What `send`, `receive` and iteration return is used as a coroutine is: with esockd-speedups and without."""

from __future__ import annotations

import asyncio
import gc
import inspect
import sys
import types
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import anyio
import pytest
from anyio import ClosedResourceError
from tests.core.conftest import ASYNCIO_ONLY, Serve, settle, until

from esockd_core._loops.asyncio.speedups import IN_USE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from esockd_core import StreamConnection

pytestmark = [pytest.mark.anyio, ASYNCIO_ONLY]


async def served(serve: Serve, use: Callable[[StreamConnection], Awaitable[object]], *parts: bytes) -> None:
    """Run a function as the handler, and have a client send the parts, each once all tasks are at rest."""
    failures: list[BaseException] = []
    done = anyio.Event()

    async def handle(connection: StreamConnection) -> None:
        try:
            await use(connection)
        except BaseException as error:
            failures.append(error)
            raise
        finally:
            done.set()

    async with serve(handle) as (_, client):
        for part in parts:
            await settle()
            await client.send(part)
        await done.wait()
    if failures:
        raise failures[0]


METHODS: dict[str, Callable[[StreamConnection], Any]] = {
    "send": lambda connection: connection.send(b"x"),
    "receive": lambda connection: connection.receive(),
    "anext": lambda connection: connection.__anext__(),
}


@pytest.mark.parametrize("name", METHODS)
async def test_what_is_awaited_twice_is_refused(serve: Serve, name: str) -> None:
    async def use(connection: StreamConnection) -> None:
        once = METHODS[name](connection)
        await once
        with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
            await once

    await served(serve, use, b"hello")


@pytest.mark.parametrize("name", METHODS)
async def test_what_is_never_awaited_is_warned_of_and_does_nothing(serve: Serve, name: str) -> None:
    async def use(connection: StreamConnection) -> None:
        with pytest.warns(RuntimeWarning, match=r"coroutine 'AsyncioStream\.\w+' was never awaited"):
            METHODS[name](connection)
        assert connection.bytes_out == 0
        assert await connection.receive() == b"hello"

    await served(serve, use, b"hello")


async def test_nothing_is_sent_before_it_is_awaited(serve: Serve) -> None:
    async def use(connection: StreamConnection) -> None:
        sending = connection.send(b"x")
        assert connection.bytes_out == 0
        await sending
        assert connection.bytes_out == 1

    await served(serve, use)


@pytest.mark.parametrize("name", METHODS)
async def test_closed_before_it_is_awaited_it_does_nothing(serve: Serve, name: str) -> None:
    async def use(connection: StreamConnection) -> None:
        closed = METHODS[name](connection)
        closed.close()
        with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
            await closed
        assert connection.bytes_out == 0

    await served(serve, use)


@pytest.mark.parametrize("name", METHODS)
async def test_an_error_thrown_into_it_before_it_is_awaited_ends_it(serve: Serve, name: str) -> None:
    async def use(connection: StreamConnection) -> None:
        thrown = METHODS[name](connection)
        with pytest.raises(ZeroDivisionError, match="thrown"):
            thrown.throw(ZeroDivisionError("thrown"))
        with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
            await thrown

    await served(serve, use)


async def test_two_tasks_cannot_await_the_same_receive(serve: Serve) -> None:
    async def use(connection: StreamConnection) -> None:
        receiving = connection.receive()

        async def second() -> None:
            with pytest.raises(RuntimeError, match="coroutine is being awaited already"):
                await receiving
            connection.send_nowait(b"second")

        asyncio.get_running_loop().call_soon(lambda: tasks.append(asyncio.ensure_future(second())))
        tasks: list[asyncio.Task[None]] = []
        assert await receiving == b"hello"
        await tasks[0]

    await served(serve, use, b"hello")


async def test_two_tasks_cannot_receive_at_the_same_time(serve: Serve) -> None:
    async def use(connection: StreamConnection) -> None:
        first = asyncio.ensure_future(connection.receive())
        await asyncio.sleep(0)
        with pytest.raises(anyio.BusyResourceError):
            await connection.receive()
        with pytest.raises(anyio.BusyResourceError):
            await anext(connection)
        connection.send_nowait(b"go on")
        assert await first == b"hello"

    await served(serve, use, b"hello")


@pytest.mark.parametrize("name", METHODS)
async def test_a_task_is_made_of_it(serve: Serve, name: str) -> None:
    async def use(connection: StreamConnection) -> None:
        for run in (asyncio.ensure_future, asyncio.create_task):
            result = await run(METHODS[name](connection))
            assert result == (None if name == "send" else b"hello")
            if run is asyncio.ensure_future and name != "send":
                connection.put_back(b"hello")  # type: ignore[attr-defined]

    await served(serve, use, b"hello")


async def test_it_is_started_in_a_task_group_of_anyio_and_cancelled_there(serve: Serve) -> None:
    async def use(connection: StreamConnection) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(connection.receive)
            tasks.start_soon(connection.send, b"x")
            await settle()
            assert connection.bytes_out == 1
            tasks.cancel_scope.cancel()
        connection.send_nowait(b"go on")
        assert await connection.receive() == b"hello"

    async def handle(connection: StreamConnection) -> None:
        await use(connection)
        connection.send_nowait(b"done")

    async with serve(handle) as (_, client):
        received = b""
        while not received.endswith(b"go on"):
            received += await client.receive()
        await client.send(b"hello")
        assert await client.receive() == b"done"


async def test_asyncio_gives_up_on_it_after_a_timeout_and_nothing_is_lost(serve: Serve) -> None:
    async def use(connection: StreamConnection) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(connection.receive(), 0.01)
        connection.send_nowait(b"go on")
        assert await asyncio.wait_for(connection.receive(), None) == b"hello"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await anext(connection)
        connection.send_nowait(b"done")

    async with serve(use) as (_, client):
        assert await client.receive() == b"go on"
        await client.send(b"hello")
        assert await client.receive() == b"done"


async def test_a_default_is_the_answer_at_the_end_of_the_stream(serve: Serve) -> None:
    ends: list[object] = []

    async def use(connection: StreamConnection) -> None:
        ends.append(await anext(connection, b"the end"))
        ends.append(await anext(connection, b"the end"))
        with pytest.raises(StopAsyncIteration):
            await anext(connection)
        with pytest.raises(anyio.EndOfStream):
            await connection.receive()
        ends.append(b"done")

    async with serve(use) as (_, client):
        await client.send(b"hello")
        await until(lambda: ends)
        await client.send_eof()
        await until(lambda: len(ends) == 3)
    assert ends == [b"hello", b"the end", b"done"]


async def test_functions_that_ask_what_it_is_get_the_answer_of_a_coroutine(serve: Serve) -> None:
    async def use(connection: StreamConnection) -> None:
        assert inspect.iscoroutinefunction(connection.send)
        assert str(inspect.signature(connection.send)) == "(item: 'bytes') -> 'None'"
        for name, call in METHODS.items():
            made = call(connection)
            assert asyncio.iscoroutine(made)
            assert inspect.isawaitable(made)
            assert not asyncio.isfuture(made)
            assert cast("Any", made).__name__ == ("send" if name == "send" else "_receive")
            assert weakref.ref(made)() is made
            made.close()
        connection.send_nowait(b"go on")
        task = asyncio.ensure_future(connection.receive())
        await asyncio.sleep(0)
        coroutine: Any = task.get_coro()
        assert inspect.getcoroutinestate(coroutine) == inspect.CORO_SUSPENDED
        assert coroutine.cr_await is not None
        assert await task == b"hello"

    await served(serve, use, b"hello")


async def test_a_receive_that_is_closed_while_it_waits_leaves_the_stream_usable(serve: Serve) -> None:
    async def use(connection: StreamConnection) -> None:
        receiving: Any = connection.receive()
        receiving.send(None)
        with pytest.raises(anyio.BusyResourceError):
            await connection.receive()
        receiving.close()
        connection.send_nowait(b"go on")
        assert await connection.receive() == b"hello"

    await served(serve, use, b"hello")


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
async def test_a_cycle_through_what_is_not_awaited_yet_is_collected(serve: Serve) -> None:
    class Holder(bytearray):
        held: object

    async def use(connection: StreamConnection) -> None:
        holder = Holder(b"x")
        holder.held = connection.send(cast("Any", holder))
        gone = weakref.ref(holder)
        del holder
        gc.collect()
        assert gone() is None

    await served(serve, use)


ENDS: dict[str, Callable[[Any], Any]] = {
    "throw": lambda made: made.throw(ZeroDivisionError()),
    "wait and close": lambda made: (made.send(None), made.close()),
    "wait and throw": lambda made: (made.send(None), made.throw(ZeroDivisionError())),
}
if IN_USE or sys.version_info < (3, 13):  # a coroutine of CPython that is closed before it begins keeps all
    ENDS["close"] = lambda made: made.close()


def kept_by(made: object, connection: StreamConnection) -> list[object]:
    return [each for each in gc.get_referents(made) if each is connection or isinstance(each, bytes)]


@pytest.mark.parametrize("name", METHODS)
async def test_what_was_awaited_keeps_neither_the_stream_nor_the_bytes(serve: Serve, name: str) -> None:
    async def use(connection: StreamConnection) -> None:
        made = METHODS[name](connection)
        await made
        assert kept_by(made, connection) == []

    await served(serve, use, b"hello")


@pytest.mark.parametrize("end", ENDS)
async def test_what_was_ended_early_keeps_neither_the_stream_nor_the_bytes(serve: Serve, end: str) -> None:
    async def use(connection: StreamConnection) -> None:
        made = connection.receive()
        with suppress(ZeroDivisionError):
            ENDS[end](made)
        assert kept_by(made, connection) == []

    await served(serve, use)


async def test_more_bytes_than_were_asked_for_come_in_parts(serve: Serve) -> None:
    async def use(connection: StreamConnection) -> None:
        assert await connection.receive(2) == b"he"
        assert await connection.receive(2) == b"ll"
        assert await anext(connection) == b"o"

    await served(serve, use, b"hello")


@pytest.mark.parametrize("given", [0, -1, "1", None, 1.0])
async def test_a_number_of_bytes_that_is_not_one_is_refused_when_it_is_awaited(serve: Serve, given: Any) -> None:
    async def use(connection: StreamConnection) -> None:
        receiving = connection.receive(given)
        with pytest.raises(ValueError, match="takes a whole number, 1 or more"):
            await receiving

    await served(serve, use)


async def test_arguments_that_do_not_fit_are_refused_when_it_is_called(serve: Serve) -> None:
    async def use(connection: Any) -> None:
        with pytest.raises(TypeError, match="positional argument"):
            connection.send()
        with pytest.raises(TypeError, match="unexpected keyword argument"):
            connection.receive(most=1)
        with pytest.raises(TypeError, match="positional argument"):
            connection.send_nowait()
        await connection.send(item=b"x")
        assert await connection.receive(max_bytes=5) == b"hello"
        with pytest.raises(TypeError):
            await connection.send("text")
        await connection.send(bytearray(b"x"))
        assert connection.bytes_out == 2

    await served(serve, use, b"hello")


async def test_the_end_of_a_send_waits_for_a_peer_that_does_not_read(serve: Serve) -> None:
    async def use(connection: StreamConnection) -> None:
        async def send_much() -> None:
            while True:
                await connection.send(bytes(65_536))

        sending = asyncio.ensure_future(send_much())
        await until(lambda: cast("Any", connection)._write_paused)
        before = connection.bytes_out
        await settle()
        assert connection.bytes_out == before
        sending.cancel()
        await asyncio.wait([sending])
        connection.abort()

    await served(serve, use)


class Wrapper:
    """Awaits what it is made of in the way of classes that wrap coroutines."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield from self.inner.__await__())


@types.coroutine
def wrapped(inner: Any) -> Generator[Any, Any, Any]:
    return (yield from inner)


@pytest.mark.parametrize("wrap", [Wrapper, wrapped])
@pytest.mark.parametrize("parts", [(b"hello",), ()])
async def test_it_can_be_awaited_by_yield_from(serve: Serve, wrap: Callable[[Any], Any], parts: tuple[bytes]) -> None:
    async def use(connection: StreamConnection) -> None:
        await wrap(connection.send(b"x"))
        if parts:
            assert await wrap(connection.receive()) == b"hello"

    await served(serve, use, *parts)


class Closing(asyncio.Task[Any]):
    """A task that closes a connection when it is looked up, as a finalizer may do at any moment."""

    closes: Any = None

    def __hash__(self) -> int:
        connection, self.closes = self.closes, None
        if connection is not None:
            connection.close_nowait()
        return id(self)


@pytest.mark.parametrize("name", METHODS)
async def test_a_stream_that_closes_while_its_task_is_looked_up_is_closed(serve: Serve, name: str) -> None:
    async def use(connection: StreamConnection) -> None:
        await until(lambda: cast("Any", connection)._chunk is not None)
        started = asyncio.Event()

        async def ask() -> object:
            await started.wait()
            return await METHODS[name](connection)

        task = Closing(ask())
        task.closes = None
        await settle()
        task.closes = connection
        started.set()
        with pytest.raises(ClosedResourceError):
            await task
        assert connection.bytes_out == 0

    await served(serve, use, b"hello")


async def test_what_an_earlier_wait_was_for_does_not_end_a_later_one(serve: Serve) -> None:
    """A program may keep the future that a task waited for, to look at it or to cancel it."""
    tasks: list[Any] = []
    received: list[bytes] = []

    async def receive(connection: StreamConnection) -> None:
        tasks.append(asyncio.current_task())
        while len(received) < 5:
            received.append(await connection.receive())

    async with serve(receive) as (_, client):
        kept: list[asyncio.Future[None]] = []
        for number in range(5):
            await until(lambda: len(received) == number and tasks and tasks[0]._fut_waiter is not None)  # noqa: B023
            for each in kept:
                each.cancel()
            kept.append(tasks[0]._fut_waiter)
            await settle()
            await client.send(b"x")
        await until(lambda: len(received) == 5)
