"""Killing connections: the socket is reset, and the handler is cancelled until it has ended."""

from __future__ import annotations

from contextlib import suppress

import anyio
import pytest
from tests.core.conftest import MORE_THAN_KERNELS_HOLD, connect, reasons, rest, until

from esockd_core import CallbackHandler, Handler, StreamConnection, open_listener

pytestmark = pytest.mark.anyio


async def swallow_three_times(connection: StreamConnection) -> None:
    for _ in range(3):
        with suppress(anyio.get_cancelled_exc_class()):
            await anyio.sleep_forever()


async def shielded(connection: StreamConnection) -> None:
    with anyio.CancelScope(shield=True):
        async for _ in connection:
            pass


async def shielded_and_sending(connection: StreamConnection) -> None:
    with anyio.CancelScope(shield=True):
        while True:
            await connection.send(bytes(MORE_THAN_KERNELS_HOLD))


async def lost_in_cleaning_up(connection: StreamConnection) -> None:
    try:
        await anyio.sleep_forever()
    finally:
        with anyio.CancelScope(shield=True):
            await connection.receive()


class Deaf(CallbackHandler):
    def connection_made(self, connection: StreamConnection) -> None:
        connection.pause_reading()
        connection.send_nowait(bytes(MORE_THAN_KERNELS_HOLD))


@pytest.mark.parametrize(
    "handler",
    [swallow_three_times, shielded, shielded_and_sending, lost_in_cleaning_up, Deaf()],
    ids=lambda handler: getattr(handler, "__name__", "callback"),
)
async def test_a_killed_connection_and_its_handler_end_whatever_the_handler_does(handler: Handler) -> None:
    with anyio.fail_after(30):
        async with open_listener("kill", "127.0.0.1:0", handler, idle_timeout=None, send_timeout=None) as listener:
            with connect(listener) as client:
                await until(lambda: listener.connections)
                await anyio.sleep(0.05)
                assert await listener.kill_connection(listener.connections[0].id)
                with pytest.raises(ConnectionResetError):
                    await rest(client)
                assert await reasons(listener) == {"killed": 1}
                assert listener.stats().current_connections == 0


async def test_a_handler_that_asyncio_alone_can_cancel_is_cancelled_in_its_shield(anyio_backend_name: str) -> None:
    async def handler(connection: StreamConnection) -> None:
        with anyio.CancelScope(shield=anyio_backend_name != "trio"):  # trio knows no way through a shield
            await anyio.sleep_forever()

    with anyio.fail_after(30):
        async with open_listener("kill", "127.0.0.1:0", handler) as listener:
            with connect(listener):
                await until(lambda: listener.connections)
                await anyio.sleep(0.05)
                assert await listener.kill_connections("127.0.0.0/8") == 1
                assert await reasons(listener) == {"killed": 1}
