"""The block in which a connection in memory is served: errors of both sides, and handlers that stay."""

from __future__ import annotations

import anyio
import pytest
import trio
import trio.testing
from tests.core.conftest import echo, settle

from esockd_core import CallbackHandler, Handler, ListenerOptions, StreamConnection
from esockd_core.testing import memory_connection

pytestmark = pytest.mark.anyio


async def test_an_assertion_that_fails_in_the_block_arrives_as_itself_and_ends_the_handler() -> None:
    connection = memory_connection()
    with pytest.raises(AssertionError, match="mine"):
        async with connection.served_by(echo):
            raise AssertionError("mine")
    assert connection.state == "closed"
    assert connection.reason == "shutdown"


async def test_what_the_handler_raised_can_be_looked_at() -> None:
    async def handle(connection: StreamConnection) -> None:
        raise ZeroDivisionError

    connection = memory_connection()
    await connection.peer.aclose()
    assert await connection.serve(handle) == "handler_error"
    assert isinstance(connection.failure, ZeroDivisionError)


async def fail(connection: StreamConnection) -> None:
    await connection.receive()
    raise ZeroDivisionError("the handler's")


class Fail(CallbackHandler):
    def data_received(self, connection: StreamConnection, data: bytes) -> None:
        raise ZeroDivisionError("the handler's")


BOTH_STYLES = pytest.mark.parametrize("handler", [fail, Fail()], ids=["coroutine", "callback"])


@BOTH_STYLES
async def test_what_the_handler_raised_is_raised_at_the_end_of_the_block(handler: Handler) -> None:
    connection = memory_connection()
    with pytest.raises(ZeroDivisionError, match="the handler's") as caught:  # noqa: PT012
        async with connection.served_by(handler) as peer:
            await peer.send(b"x")
            assert await peer.receive_all() == b""
    assert caught.value is connection.failure
    assert connection.reason == "handler_error"


@BOTH_STYLES
async def test_an_error_of_the_block_names_what_the_handler_raised_as_its_cause(handler: Handler) -> None:
    connection = memory_connection()
    with pytest.raises(anyio.EndOfStream) as caught:  # noqa: PT012
        async with connection.served_by(handler) as peer:
            await peer.send(b"x")
            await peer.receive()
    assert caught.value.__cause__ is connection.failure is not None


@BOTH_STYLES
async def test_a_test_may_keep_what_the_handler_raised(handler: Handler) -> None:
    connection = memory_connection()
    async with connection.served_by(handler, raise_failure=False) as peer:
        await peer.send(b"x")
        assert await peer.receive_all() == b""
    assert isinstance(connection.failure, ZeroDivisionError)
    with pytest.raises(anyio.EndOfStream) as caught:  # noqa: PT012
        async with memory_connection().served_by(handler, raise_failure=False) as peer:
            await peer.send(b"x")
            await peer.receive()
    assert caught.value.__cause__ is None


async def test_an_end_that_the_handler_did_not_catch_is_not_raised() -> None:
    async def receive_for_ever(connection: StreamConnection) -> None:
        await connection.send(b"!")
        while True:
            await connection.receive()

    for breaks in (False, True):
        connection = memory_connection()
        async with connection.served_by(receive_for_ever) as peer:
            assert await peer.receive() == b"!"
            await settle()
            if breaks:
                peer.reset()
        assert connection.failure is None
        assert connection.reason == ("reset" if breaks else "normal")


async def leave(*_: object) -> None:
    raise SystemExit(3)


async def leave_beside_an_error(connection: StreamConnection) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(leave)
        raise ZeroDivisionError


class Leave(CallbackHandler):
    def connection_made(self, connection: StreamConnection) -> None:
        raise SystemExit(3)


@pytest.mark.parametrize("handler", [leave, leave_beside_an_error, Leave()], ids=["task", "group", "callback"])
def test_what_is_meant_to_end_the_program_does(handler: Handler) -> None:
    async def main() -> None:
        async with memory_connection().served_by(handler):
            await anyio.sleep_forever()

    with pytest.raises((SystemExit, BaseExceptionGroup)) as caught:
        trio.run(main)
    assert isinstance(caught.value, SystemExit) or caught.group_contains(SystemExit)


def test_errors_of_block_and_handler_arrive_together() -> None:
    async def main() -> None:
        async with memory_connection().served_by(leave):
            try:
                await anyio.sleep_forever()
            finally:
                raise AssertionError("mine")

    with pytest.raises(BaseExceptionGroup) as caught:
        trio.run(main)
    assert caught.group_contains(SystemExit)
    assert caught.group_contains(AssertionError)


async def test_callbacks_get_what_came_before_a_reset() -> None:
    told: list[object] = []

    class Note(CallbackHandler):
        def data_received(self, connection: StreamConnection, data: bytes) -> None:
            told.append((data, connection.state))

        def connection_lost(self, connection: StreamConnection, error: Exception | None) -> None:
            told.append(type(error))

    connection = memory_connection(chunk_bytes=4)
    await connection.peer.send(b"last words")
    connection.peer.reset()
    assert await connection.serve(Note()) == "reset"
    assert told == [(b"last", "open"), (b" wor", "open"), (b"ds", "open"), ConnectionResetError]


async def test_callbacks_of_a_cancelled_test_still_hear_of_the_end() -> None:
    lost: list[Exception | None] = []

    class Note(CallbackHandler):
        def connection_lost(self, connection: StreamConnection, error: Exception | None) -> None:
            lost.append(error)

    with anyio.move_on_after(0.05):
        await memory_connection().serve(Note())
    assert lost == [None]


async def test_an_error_beside_a_cancellation_is_the_handlers() -> None:
    async def handle(connection: StreamConnection) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep_forever)
            try:
                await anyio.sleep_forever()
            finally:
                raise ZeroDivisionError

    connection = memory_connection(options=ListenerOptions(shutdown_timeout=0))
    with pytest.raises(ExceptionGroup):
        async with connection.served_by(handle):
            await anyio.wait_all_tasks_blocked()
    assert connection.failure is not None
    assert connection.reason == "shutdown"  # as of a listener: it was cancelled first


async def test_a_handler_that_stays_is_given_up_on_as_stuck() -> None:
    began, release = anyio.Event(), anyio.Event()

    async def stay(connection: StreamConnection) -> None:
        began.set()
        with anyio.CancelScope(shield=True), anyio.move_on_after(20):
            await release.wait()

    connection = memory_connection(options=ListenerOptions(shutdown_timeout=0))
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:

            async def play() -> None:
                async with connection.served_by(stay):
                    await began.wait()

            tasks.start_soon(play)
            while connection.reason is None:  # noqa: ASYNC110
                await anyio.sleep(0.05)
            release.set()
    assert connection.reason == "stuck"
