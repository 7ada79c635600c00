"""Tasks that wait in `send`: what wakes them, and what they are told."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio
import pytest
from tests.core.conftest import MORE_THAN_KERNELS_HOLD, connect, reasons, settle, until
from tests.core.connection.strangers import serving

if TYPE_CHECKING:
    from esockd_core import StreamConnection

pytestmark = pytest.mark.anyio


async def test_closing_wakes_a_blocked_send_with_closed(anyio_backend_name: str) -> None:
    raised: list[BaseException] = []

    async def handler(connection: StreamConnection) -> None:
        async def send() -> None:
            try:
                await connection.send(bytes(MORE_THAN_KERNELS_HOLD))
            except anyio.ClosedResourceError as error:
                raised.append(error)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            tasks.start_soon(send)
            await settle()
            await connection.aclose()
            await until(lambda: len(raised) == 2)

    async with serving(handler, linger_timeout=0.1, send_timeout=1) as listener:
        with connect(listener):
            await reasons(listener)
    assert len(raised) == 2


async def test_whoever_closes_after_a_reset_is_told_closed_and_not_broken() -> None:
    raised: list[type[BaseException]] = []

    async def handler(connection: StreamConnection) -> None:
        with suppress(anyio.BrokenResourceError):
            await connection.receive()
        await connection.aclose()
        for call in (lambda: connection.send(b"x"), connection.receive):
            try:
                await call()
            except Exception as error:  # noqa: BLE001
                raised.append(type(error))

    async with serving(handler) as listener:
        client = connect(listener)
        await until(lambda: listener.connections)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        await reasons(listener)
    assert raised == [anyio.ClosedResourceError, anyio.ClosedResourceError]


async def test_a_send_that_is_cancelled_right_after_its_wake_up_stays_cancelled() -> None:
    ended: list[str] = []

    async def handler(connection: StreamConnection) -> None:
        scope = anyio.CancelScope()

        async def send() -> None:
            with scope:
                try:
                    await connection.send(bytes(MORE_THAN_KERNELS_HOLD))
                except anyio.get_cancelled_exc_class():
                    ended.append("cancelled")
                    raise
                except Exception as error:  # noqa: BLE001
                    ended.append(repr(error))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            await settle()
            connection._pause_writing(paused=False)  # type: ignore[attr-defined] # wakes it, before the next turn
            scope.cancel()
        connection.abort()

    async with serving(handler) as listener:
        with connect(listener):
            assert await reasons(listener) == {"aborted": 1}
    assert ended in (["cancelled"], [])
    assert "ValueError" not in str(ended)


async def test_many_sends_that_are_cancelled_while_they_wait_leave_nothing_behind() -> None:
    left: list[object] = []

    async def handler(connection: StreamConnection) -> None:
        connection.send_nowait(bytes(MORE_THAN_KERNELS_HOLD))
        async with anyio.create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(connection.send, b"x")
            await settle()
            tasks.cancel_scope.cancel()
        left.append(len(getattr(connection, "_senders", None) or ()))
        connection.abort()

    async with serving(handler) as listener:
        with connect(listener):
            assert await reasons(listener) == {"aborted": 1}
    assert left == [0]


@pytest.mark.parametrize("max_bytes", [1, 7, 2**31, 2**63, 10**30])
async def test_any_whole_number_of_bytes_may_be_asked_for(max_bytes: int) -> None:
    taken: list[bytes] = []

    async def handler(connection: StreamConnection) -> None:
        taken.append(await connection.receive(max_bytes))
        await connection.send(b"x")

    async with serving(handler) as listener:
        with connect(listener) as client:
            client.send(b"hello")
            assert await reasons(listener) == {"normal": 1}
    assert taken == [b"hello"[:max_bytes]]
