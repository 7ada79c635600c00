"""What asyncio, trio and a connection in memory once did each in its own way, and now do alike."""

from __future__ import annotations

import anyio
import pytest
from tests.core.conftest import MORE_THAN_KERNELS_HOLD, until
from tests.core.conftest import connect as connect_socket
from tests.core.testing.conftest import Connect, Notes

from esockd_core import CallbackHandler, ConnectionEvent, Handler, StreamConnection, open_listener

pytestmark = pytest.mark.anyio


async def test_a_closing_connection_takes_no_bytes_however_many_wait(connect: Connect) -> None:
    """A program that tries again later on `WouldBlock` would do so for ever."""
    notes = Notes()

    async def handle(connection: StreamConnection) -> None:
        connection.send_nowait(bytes(MORE_THAN_KERNELS_HOLD))
        with pytest.raises(anyio.WouldBlock):
            connection.send_nowait(bytes(MORE_THAN_KERNELS_HOLD))
        connection.close_nowait()
        with pytest.raises(anyio.ClosedResourceError):
            connection.send_nowait(bytes(MORE_THAN_KERNELS_HOLD))
        notes.append("refused")

    async with connect(handle) as link:
        await notes.until("refused")
        assert await link.receive_all() == bytes(MORE_THAN_KERNELS_HOLD)
    assert link.reason == "normal"


async def test_a_coroutine_handler_cannot_pause_reading_and_so_cannot_wait_for_ever(connect: Connect) -> None:
    notes = Notes()

    async def handle(connection: StreamConnection) -> None:
        for action in (connection.pause_reading, connection.resume_reading):
            with pytest.raises(RuntimeError, match="not calling receive"):
                action()
        notes.append((await connection.receive()).decode())

    async with connect(handle) as link:
        await link.peer.send(b"hello")
        await notes.until("hello")
    assert link.reason == "normal"


class Told(CallbackHandler):
    """Notes what it hears."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def connection_made(self, connection: StreamConnection) -> None:
        self.heard.append("made")

    def connection_lost(self, connection: StreamConnection, error: Exception | None) -> None:
        self.heard.append("lost")


@pytest.mark.parametrize("style", ["coroutine", "callback"])
@pytest.mark.parametrize("how", ["abort", "close_nowait"])
async def test_no_handler_hears_of_a_connection_that_the_event_of_its_start_ended(style: str, how: str) -> None:
    callbacks = Told()
    events: list[str] = []

    async def handle(_: StreamConnection) -> None:
        callbacks.heard.append("called")

    def end_it(event: ConnectionEvent) -> None:
        events.append(event.kind)
        if event.kind == "connection_started":
            getattr(event.connection, how)("unwanted")

    handler: Handler = handle if style == "coroutine" else callbacks
    with anyio.fail_after(30):
        async with open_listener("test", "127.0.0.1:0", handler, on_event=end_it) as listener:
            with connect_socket(listener) as client:
                if how == "close_nowait":
                    client.close()
                await until(lambda: listener.stats().shutdown_counts == {"unwanted": 1})
            await anyio.wait_all_tasks_blocked()
    assert events == ["connection_started", "connection_stopped"]
    assert not callbacks.heard
