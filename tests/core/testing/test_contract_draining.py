"""A connection in memory is to its handler what a listener's connection is: scopes that end when a drain begins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest
from anyio.lowlevel import checkpoint
from tests.core.conftest import settle
from tests.core.testing.conftest import Connect, Link, Notes

from esockd_core import CallbackHandler

if TYPE_CHECKING:
    from esockd_core import StreamConnection

pytestmark = pytest.mark.anyio


def drain(link: Link) -> None:
    (connection,) = link.connections()
    connection.request_draining()


async def echo(connection: StreamConnection) -> None:
    with connection.until_draining():
        async for data in connection:
            await connection.send(data)


async def test_an_idle_echo_ends_at_once_when_the_drain_begins(connect: Connect) -> None:
    async with connect(echo, shutdown_timeout=None) as link:
        await link.peer.send(b"hello")
        assert await link.receive_exactly(5) == b"hello"
        drain(link)
        assert await link.receive_all() == b""
    assert link.reason == "normal"


async def test_what_was_received_is_sent_back_although_the_drain_began(connect: Connect) -> None:
    notes = Notes()

    async def slow_echo(connection: StreamConnection) -> None:
        with connection.until_draining():
            async for data in connection:
                notes.append("received")
                await settle()
                await connection.send(data)
                await settle()
                await connection.send(b"!")

    async with connect(slow_echo, shutdown_timeout=None) as link:
        await link.peer.send(b"hello")
        await notes.until("received")
        drain(link)
        assert await link.receive_all() == b"hello!"
    assert link.reason == "normal"


@pytest.mark.parametrize("turns", range(6))
async def test_input_that_comes_as_the_drain_begins_is_served_whole_or_left(connect: Connect, turns: int) -> None:
    taken = bytearray()

    async def handle(connection: StreamConnection) -> None:
        with connection.until_draining():
            async for data in connection:
                taken.extend(data)
                await connection.send(data)

    async with connect(handle, shutdown_timeout=None) as link:
        await link.peer.send(b"1")
        answered = await link.receive_exactly(1)
        await link.peer.send(b"2")
        for _ in range(turns):
            await checkpoint()
        drain(link)
        answered += await link.receive_all()
    assert answered == taken
    assert link.reason == "normal"


async def test_a_message_that_has_begun_is_received_to_its_end(connect: Connect) -> None:
    notes = Notes()

    async def handle(connection: StreamConnection) -> None:
        with connection.until_draining() as scope:
            while True:
                size = int(await connection.receive_until(b"\n", 10))
                notes.append("header")
                notes.append(repr(await connection.receive_exactly(size, mid_message=True)))
                await connection.send(b"done")
        notes.append(str(scope.cancelled_caught))

    async with connect(handle, shutdown_timeout=None) as link:
        await link.peer.send(b"4\n")
        await notes.until("header")
        await settle()
        drain(link)
        await settle()
        await link.peer.send(b"bo")
        await settle()
        await link.peer.send(b"dy")
        assert await link.receive_all() == b"done"
    assert notes.has("header", "b'body'", "True")


async def test_a_part_of_a_line_waits_for_its_rest(connect: Connect) -> None:
    notes = Notes()

    async def handle(connection: StreamConnection) -> None:
        await connection.send(b"+")
        with connection.until_draining():
            async for line in connection.lines():
                notes.append(repr(line))

    async with connect(handle, shutdown_timeout=None) as link:
        await link.receive_exactly(1)
        (connection,) = link.connections()
        await link.peer.send(b"hel")
        while connection.bytes_in < 3:  # noqa: ASYNC110
            await anyio.sleep(0.001)
        drain(link)
        await settle()
        await link.peer.send(b"lo\n")
        assert await link.receive_all() == b""
    assert notes.has("b'hello'")


async def test_a_body_that_receives_nothing_is_cancelled_at_once(connect: Connect) -> None:
    notes = Notes()

    async def handle(connection: StreamConnection) -> None:
        await connection.receive()
        with connection.until_draining() as scope:
            await connection.send(b"!")
            await anyio.sleep_forever()
        notes.append(str(scope.cancelled_caught))
        await connection.send(b"goodbye")

    async with connect(handle, shutdown_timeout=None) as link:
        await link.peer.send(b"subscribe")
        await link.receive_exactly(1)
        drain(link)
        assert await link.receive_all() == b"goodbye"
    assert notes.has("True")


async def test_a_scope_entered_while_draining_ends_at_its_first_wait(connect: Connect) -> None:
    notes = Notes()

    async def handle(connection: StreamConnection) -> None:
        await connection.send(b"+")
        await connection.wait_draining()
        with connection.until_draining():
            notes.append("entered")
            await anyio.sleep_forever()

    async with connect(handle, shutdown_timeout=None) as link:
        await link.receive_exactly(1)
        drain(link)
        assert await link.receive_all() == b""
    assert notes.has("entered")


async def test_a_scope_that_was_left_is_cancelled_no_more(connect: Connect) -> None:
    async def handle(connection: StreamConnection) -> None:
        with connection.until_draining():
            await connection.receive(1)
        with connection.until_draining() as scope:
            scope.cancel()
        await connection.send(b"+")
        await connection.wait_draining()
        await connection.send(await connection.receive())

    async with connect(handle, shutdown_timeout=None) as link:
        await link.peer.send(b"1")
        await link.receive_exactly(1)
        drain(link)
        await settle()
        await link.peer.send(b"still served")
        assert await link.receive_all() == b"still served"


async def test_two_scopes_of_two_tasks_end_together(connect: Connect) -> None:
    notes = Notes()

    async def handle(connection: StreamConnection) -> None:
        async def push() -> None:
            with connection.until_draining():
                await anyio.sleep_forever()
            notes.append("pushed")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(push)
            with connection.until_draining():
                async for data in connection:
                    await connection.send(data)
            notes.append("read")

    async with connect(handle, shutdown_timeout=None) as link:
        await link.peer.send(b"1")
        await link.receive_exactly(1)
        drain(link)
        await link.receive_all()
    assert sorted(notes) == ["pushed", "read"]


async def test_callbacks_have_no_scopes(connect: Connect) -> None:
    notes = Notes()

    class Handler(CallbackHandler):
        def connection_made(self, connection: StreamConnection) -> None:
            try:
                connection.until_draining()
            except RuntimeError as error:
                notes.append(str(error))
            connection.close_nowait()

    async with connect(Handler()) as link:
        await link.receive_all()
    assert notes.has("until_draining() is for coroutine handlers; callbacks are told by drain_requested()")
