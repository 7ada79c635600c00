"""A connection in memory is to its handler what a listener's connection is: what a coroutine receives."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio
import pytest
from tests.core.conftest import settle
from tests.core.testing.conftest import Connect, Notes

from esockd_core.testing import exchange

if TYPE_CHECKING:
    from esockd_core import StreamConnection

pytestmark = pytest.mark.anyio


async def test_receive_gives_at_most_what_was_asked_for(connect: Connect) -> None:
    notes = Notes()

    async def handle(connection: StreamConnection) -> None:
        await notes.error_of(connection.receive(0))
        await notes.error_of(connection.receive(1))
        await notes.error_of(connection.receive(2))
        await notes.error_of(connection.receive())

    async with connect(handle) as link:
        await link.peer.send(b"abcdef")
        await link.receive_all()
    assert notes.has("ValueError", "b'a'", "b'bc'", "b'def'")


async def test_the_end_of_the_stream_is_told_again_and_again(connect: Connect) -> None:
    notes = Notes()

    async def handle(connection: StreamConnection) -> None:
        for _ in range(3):
            await notes.error_of(connection.receive())
        await connection.send(b"still open")

    async with connect(handle) as link:
        assert await exchange(link.peer, b"last") == b"still open"
    assert notes.has("b'last'", "EndOfStream", "EndOfStream")


async def test_one_task_receives_at_a_time(connect: Connect) -> None:
    notes = Notes()

    async def handle(connection: StreamConnection) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(notes.error_of, connection.receive())
            await settle()
            await notes.error_of(connection.receive())
            await connection.send(b"!")

    async with connect(handle) as link:
        await link.receive_exactly(1)
        await link.peer.send(b"x")
        await link.receive_all()
    assert notes.has("BusyResourceError", "b'x'")


@pytest.mark.parametrize("seed", range(3))
async def test_receives_cancelled_at_random_moments_lose_no_byte(connect: Connect, seed: int) -> None:
    payload = random.Random(seed).randbytes(20_000)
    received = bytearray()

    async def handle(connection: StreamConnection) -> None:
        chance = random.Random(seed)
        while True:
            with anyio.move_on_after(chance.choice([0, 0, 0.0005, 0.001])):
                try:
                    received.extend(await connection.receive(chance.randrange(1, 700)))
                except anyio.EndOfStream:
                    return

    async with connect(handle) as link:
        chance = random.Random(seed + 1)
        at = 0
        while at < len(payload):
            size = chance.randrange(1, 900)
            await link.peer.send(payload[at : at + size])
            at += size
            await anyio.sleep(chance.choice([0, 0, 0.0005]))
        await link.peer.send_eof()
        await link.receive_all()
    assert bytes(received) == payload
    assert link.reason == "normal"


async def test_a_cancelled_scope_takes_nothing_and_sends_nothing(connect: Connect) -> None:
    async def handle(connection: StreamConnection) -> None:
        first = await connection.receive(1)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await connection.receive()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await connection.send(b"never")
        await connection.send(first + await connection.receive())

    async with connect(handle) as link:
        await link.peer.send(b"abc")
        assert await link.receive_all() == b"abc"


async def test_a_waiting_receive_ends_when_another_task_closes(connect: Connect) -> None:
    notes = Notes()

    async def handle(connection: StreamConnection) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(notes.error_of, connection.receive())
            await settle()
            await connection.aclose()
            await connection.aclose()
        await notes.error_of(connection.receive())
        await notes.error_of(connection.send(b"x"))
        await notes.error_of(connection.send_eof())

    async with connect(handle) as link:
        assert await link.receive_all() == b""
    assert notes.has(*["ClosedResourceError"] * 4)
    assert link.reason == "normal"


async def test_what_came_before_a_reset_is_received_and_then_the_reset_is_told(connect: Connect) -> None:
    notes = Notes()

    async def handle(connection: StreamConnection) -> None:
        await connection.send(b"!")
        await notes.error_of(connection.receive())
        await notes.error_of(connection.receive())
        await notes.error_of(connection.receive())
        await notes.error_of(connection.send(b"x"))
        notes.append(connection.state)

    async with connect(handle) as link:
        await link.receive_exactly(1)
        await link.peer.send(b"last words")
        await notes.until("b'last words'")
        await link.reset()
        await notes.until("closed")
    assert notes.has("b'last words'", *["BrokenResourceError"] * 3, "closed")
    assert link.reason == "normal"


async def test_what_came_before_a_reset_can_be_received_after_it(connect: Connect) -> None:
    notes, gate = Notes(), anyio.Event()

    async def handle(connection: StreamConnection) -> None:
        await connection.receive(1)
        await gate.wait()
        await notes.error_of(connection.receive())
        await notes.error_of(connection.receive())

    async with connect(handle) as link:
        await link.peer.send(b"1")
        await link.peer.send(b"last words")
        await settle()
        await link.reset()
        await settle()
        gate.set()
        await notes.until("BrokenResourceError")
    assert notes.has("b'last words'", "BrokenResourceError")


async def test_what_was_not_received_before_closing_is_not_received_after(connect: Connect) -> None:
    notes = Notes()

    async def handle(connection: StreamConnection) -> None:
        await connection.receive(1)
        connection.close_nowait()
        await notes.error_of(connection.receive())

    async with connect(handle) as link:
        await link.peer.send(b"abc")
        assert await link.receive_all() == b""
    assert notes.has("ClosedResourceError")


async def test_who_sends_to_a_client_that_left_is_told_at_the_second_try_at_the_latest(connect: Connect) -> None:
    notes = Notes()

    async def handle(connection: StreamConnection) -> None:
        async for _ in connection:
            pass
        await notes.error_of(connection.send(b"one"))
        with suppress(anyio.EndOfStream):  # an end that was told already may be told again
            await connection.receive()
        while True:
            await connection.send(b"two")
            await anyio.sleep(0.005)

    async with connect(handle) as link:
        await link.peer.aclose()
        await notes.until("None")
    assert link.reason == "reset"
