"""A peer that resets or leaves: what the handler is told, and what is counted and logged."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, cast

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import SocketAttribute
from tests.core.conftest import Serve, settle, until
from tests.core.connection.conftest import Ends, connect_raw, reset, silent

from esockd_core import CallbackHandler, Handler, StreamConnection, open_listener

if TYPE_CHECKING:
    from esockd_core._connection.stream import StreamBase


pytestmark = pytest.mark.anyio


async def test_a_reset_is_a_broken_resource_to_the_handler(serve: Serve) -> None:
    errors: list[BaseException] = []

    async def handle(connection: StreamConnection) -> None:
        await connection.send(b"hello")
        try:
            await connection.receive()
        except anyio.BrokenResourceError as error:
            errors.append(error)
        assert connection.state == "closed"
        for _ in range(40):
            with pytest.raises(anyio.BrokenResourceError):
                await connection.receive()
            with pytest.raises(anyio.BrokenResourceError):
                await connection.send(b"x")
            with pytest.raises(anyio.BrokenResourceError):
                connection.send_nowait(b"x")

    ends = Ends()
    async with serve(handle, on_event=ends) as (_, client):
        await client.receive()
        await reset(client)
        await ends.ended.wait()
    assert isinstance(errors[0].__cause__, ConnectionResetError)
    assert ends.reasons == ["normal"]


@pytest.mark.parametrize("style", ["coroutine", "callback"])
async def test_a_broadcast_to_peers_that_reset_raises_and_warns_of_nothing(
    style: str, caplog: pytest.LogCaptureFixture
) -> None:
    """asyncio and uvloop warn of bytes for a peer that is gone, once for each send, unless nobody sends them."""
    async with open_listener(
        "test", "127.0.0.1:0", silent if style == "coroutine" else CallbackHandler(), shutdown_timeout=0
    ) as listener:
        clients = [connect_raw(listener) for _ in range(20)]
        await until(lambda: len(listener.connections) == 20)
        connections = listener.connections
        for client in clients:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
        for connection in connections * 20:  # before the event loop can tell anybody
            with suppress(anyio.BrokenResourceError):
                connection.send_nowait(b"news")
        await settle()
        for connection in connections * 20:
            with pytest.raises(anyio.BrokenResourceError):
                connection.send_nowait(b"news")
    assert caplog.records == []


async def tasks_that_receive(connection: StreamConnection) -> None:
    async with anyio.create_task_group() as task_group:
        task_group.start_soon(connection.wait_draining)
        await connection.receive()


class Answering(CallbackHandler):
    """Answers; a reset is not its business."""

    def data_received(self, connection: StreamConnection, data: bytes) -> None:
        connection.send_nowait(data)


@pytest.mark.parametrize(
    "handler", [silent, tasks_that_receive, Answering()], ids=["coroutine", "task group", "callback"]
)
async def test_a_reset_that_nobody_caught_is_counted_and_not_logged(
    serve: Serve, handler: Handler, caplog: pytest.LogCaptureFixture
) -> None:
    ends = Ends()
    async with serve(handler, on_event=ends) as (_, client):
        await ends.started.wait()
        await anyio.wait_all_tasks_blocked()
        await reset(client)
        await ends.ended.wait()
    assert ends.reasons == ["reset"]
    assert caplog.records == []


async def test_a_handler_that_ends_after_an_unnoticed_reset_ends_its_connection(serve: Serve) -> None:
    go_on = anyio.Event()

    async def handle(connection: StreamConnection) -> None:
        await connection.send(b"hello")
        await go_on.wait()

    ends = Ends()
    async with serve(handle, on_event=ends) as (_, client):
        await client.receive()
        await reset(client)
        go_on.set()
        await ends.ended.wait()
    assert len(ends.reasons) == 1


async def test_a_handler_that_finishes_sending_after_an_unnoticed_reset_gets_no_foreign_error(serve: Serve) -> None:
    go_on = anyio.Event()

    async def handle(connection: StreamConnection) -> None:
        await connection.send(b"hello")
        while not go_on.is_set():  # never giving way for long, so that the loop has no time to notice
            await anyio.lowlevel.checkpoint()
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            await connection.send_eof()

    ends = Ends()
    async with serve(handle, on_event=ends) as (_, client):
        await client.receive()
        await reset(client)
        go_on.set()
        await ends.ended.wait()
    assert ends.reasons == ["normal"]


async def test_a_peer_that_leaves_before_a_handler_asks_is_no_error(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """Probes of load balancers connect and leave: `receive` that nobody guards must not fill the log."""

    async def handle(connection: StreamConnection) -> None:
        await connection.send(await connection.receive())

    ends = Ends()
    async with serve(handle, on_event=ends) as (_, client):
        await client.aclose()
        await ends.ended.wait()
    assert ends.reasons == ["normal"]
    assert caplog.records == []


async def test_a_lost_connection_still_names_its_peer_and_the_sweep_can_look_at_it(serve: Serve) -> None:
    seen: list[object] = []

    async def lose(connection: StreamConnection) -> None:
        connection.abort()
        with pytest.raises(anyio.ClosedResourceError):
            await connection.receive()
        await anyio.sleep(0.05)  # until the event loop has let go of the socket
        seen.extend((connection.extra(SocketAttribute.remote_address), connection.extra(SocketAttribute.local_port)))
        seen.append(cast("StreamBase", connection).undelivered_bytes())

    async with serve(lose) as (listener, client):
        await until(lambda: len(seen) == 3)
        assert seen == [client.extra(SocketAttribute.local_address), listener.port, 0]
