"""A connection in memory is to its handler what a listener's connection is: how a coroutine ends."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio
import pytest
from tests.core.conftest import settle
from tests.core.testing.conftest import Connect, Notes

if TYPE_CHECKING:
    from esockd_core import StreamConnection

pytestmark = pytest.mark.anyio


async def test_an_error_of_the_handler_is_logged_once_and_counted(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "esockd_core")

    async def handle(connection: StreamConnection) -> None:
        await connection.send(b"reply")
        raise ZeroDivisionError

    async with connect(handle) as link:
        assert await link.receive_all() == b"reply"
    assert link.reason == "handler_error"
    assert len(caplog.records) == 1


async def test_an_error_of_a_task_group_in_the_handler_is_the_handlers(connect: Connect) -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    async def handle(connection: StreamConnection) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fail)
            await connection.receive()

    async with connect(handle) as link:
        assert await link.receive_all() == b""
    assert link.reason == "handler_error"


async def test_an_end_that_the_handler_did_not_catch_is_no_error(connect: Connect) -> None:
    async def handle(connection: StreamConnection) -> None:
        while True:
            await connection.receive()

    async with connect(handle) as link:
        await link.peer.send_eof()
        assert await link.receive_all() == b""
    assert link.reason == "normal"


async def test_a_handler_is_told_of_a_drain(connect: Connect) -> None:
    async def handle(connection: StreamConnection) -> None:
        await connection.wait_draining()
        assert connection.draining
        await connection.wait_draining()
        await connection.send(b"goodbye")

    async with connect(handle) as link:
        await settle()
        while not link.connections():  # noqa: ASYNC110
            await anyio.sleep(0.005)
        link.connections()[0].request_draining()
        link.connections()[0].request_draining()
        assert await link.receive_all() == b"goodbye"
    assert link.reason == "normal"


async def test_a_handler_that_does_not_end_is_cancelled_after_the_shutdown_timeout(connect: Connect) -> None:
    notes = Notes()

    async def handle(connection: StreamConnection) -> None:
        notes.append("began")
        try:
            await anyio.sleep_forever()
        finally:
            notes.append(f"draining: {connection.draining}")

    async with connect(handle, shutdown_timeout=0.1) as link:
        await notes.until("began")
    assert notes.has("began", "draining: True")
    assert link.reason == "shutdown"


async def test_a_handler_that_goes_on_in_spite_of_cancellation_is_cancelled_again(connect: Connect) -> None:
    notes = Notes()

    async def handle(connection: StreamConnection) -> None:
        for _ in range(3):
            notes.append("began")
            with suppress(anyio.get_cancelled_exc_class()):
                await anyio.sleep_forever()

    async with connect(handle, shutdown_timeout=0) as link:
        await notes.until("began")
    assert link.reason in ("shutdown", "normal")
