"""A connection in memory is to its handler what a listener's connection is: what a coroutine sends."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import anyio
import pytest
from tests.core.conftest import MORE_THAN_KERNELS_HOLD, give_up
from tests.core.testing.conftest import Connect, Notes

if TYPE_CHECKING:
    from esockd_core import StreamConnection

pytestmark = pytest.mark.anyio


async def test_send_waits_for_a_peer_that_does_not_read(connect: Connect) -> None:
    notes = Notes()

    async def handle(connection: StreamConnection) -> None:
        await give_up(lambda: connection.send(bytes(MORE_THAN_KERNELS_HOLD)))
        notes.append("gave up")
        await connection.send(b"end")

    async with connect(handle) as link:
        await notes.until("gave up")
        assert await link.receive_all() == bytes(MORE_THAN_KERNELS_HOLD) + b"end"
    assert link.reason == "normal"


async def test_a_send_behind_a_cancelled_one_waits_before_it_takes_its_bytes(connect: Connect) -> None:
    notes = Notes()

    async def handle(connection: StreamConnection) -> None:
        for data in (bytes(MORE_THAN_KERNELS_HOLD), b"never"):
            await give_up(partial(connection.send, data))
        notes.append("gave up")
        await connection.send(b"end")

    async with connect(handle) as link:
        await notes.until("gave up")
        assert await link.receive_all() == bytes(MORE_THAN_KERNELS_HOLD) + b"end"


async def test_send_nowait_takes_all_or_nothing(connect: Connect) -> None:
    notes = Notes()

    async def handle(connection: StreamConnection) -> None:
        connection.send_nowait(bytes(MORE_THAN_KERNELS_HOLD))
        try:
            connection.send_nowait(b"too much")
        except anyio.WouldBlock:
            notes.append("WouldBlock")
        await connection.send(b"end")

    async with connect(handle) as link:
        assert await link.receive_all() == bytes(MORE_THAN_KERNELS_HOLD) + b"end"
    assert notes.has("WouldBlock")


async def test_a_buffer_that_changes_later_was_sent_as_it_was(connect: Connect) -> None:
    async def handle(connection: StreamConnection) -> None:
        buffer = bytearray(b"abc")
        await connection.send(buffer)  # type: ignore[arg-type]
        connection.send_nowait(buffer)  # type: ignore[arg-type]
        buffer[:] = b"xyz"

    async with connect(handle) as link:
        assert await link.receive_all() == b"abcabc"


async def test_what_is_no_bytes_is_a_type_error_and_nothing_is_allowed(connect: Connect) -> None:
    notes = Notes()

    async def handle(connection: StreamConnection) -> None:
        await notes.error_of(connection.send("text"))  # type: ignore[arg-type]
        await notes.error_of(connection.send(b""))

    async with connect(handle) as link:
        assert await link.receive_all() == b""
    assert notes.has("TypeError", "None")


async def test_who_finished_sending_still_receives(connect: Connect) -> None:
    notes = Notes()

    async def handle(connection: StreamConnection) -> None:
        await connection.send(b"bye")
        await connection.send_eof()
        await connection.send_eof()
        await notes.error_of(connection.send(b"x"))
        await notes.error_of(connection.receive())

    async with connect(handle) as link:
        assert await link.receive_all() == b"bye"
        await link.peer.send(b"after the end")
        await notes.until("b'after the end'")
    assert notes.has("ClosedResourceError", "b'after the end'")


async def test_a_reply_survives_what_nobody_read(connect: Connect) -> None:
    async def handle(connection: StreamConnection) -> None:
        await connection.receive(1)
        await connection.send(b"Thursday")

    async with connect(handle) as link:
        await link.peer.send(bytes(50_000))
        with suppress(anyio.BrokenResourceError):
            for _ in range(5):
                await link.peer.send(b"more of it")
        assert await link.receive_all() == b"Thursday"
    assert link.reason == "normal"


async def test_a_peer_that_takes_nothing_is_closed_after_the_send_timeout(connect: Connect) -> None:
    notes = Notes()

    async def handle(connection: StreamConnection) -> None:
        await notes.error_of(connection.send(bytes(MORE_THAN_KERNELS_HOLD)))

    async with connect(handle, send_timeout=0.2) as link:
        await notes.until("BrokenResourceError")
    assert link.reason == "send_timeout"
