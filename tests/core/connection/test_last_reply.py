"""Closing: the last reply arrives whole, whatever its client goes on doing."""

from __future__ import annotations

from contextlib import suppress

import anyio
import anyio.lowlevel
import pytest
from tests.core.conftest import MIB, MORE_THAN_KERNELS_HOLD, Serve, receive_all
from tests.core.connection.conftest import Ends, connect_raw

from esockd_core import CallbackHandler, Handler, StreamConnection

pytestmark = pytest.mark.anyio


async def test_a_close_while_a_sender_waits_hurts_nobody_else(serve: Serve) -> None:
    closed = anyio.Event()

    async def pour(connection: StreamConnection) -> None:
        with suppress(anyio.ClosedResourceError):
            await connection.send(bytes(MORE_THAN_KERNELS_HOLD))

    async def handler(connection: StreamConnection) -> None:
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(pour, connection)
            await connection.receive()
            connection.close_nowait()
            closed.set()

    async with serve(handler) as (listener, client):
        await client.send(b"close")
        await closed.wait()
        await client.send_eof()
        await anyio.sleep(0.05)
        assert len(await receive_all(client)) == MORE_THAN_KERNELS_HOLD
        assert listener.state == "running"


async def test_a_reply_survives_what_its_client_sends_unasked(serve: Serve) -> None:
    """A closed socket with unread input is reset by the kernel, and a reset destroys what was sent last."""

    async def daytime(connection: StreamConnection) -> None:
        await connection.receive(1)
        await connection.send(b"Thursday")

    async with serve(daytime) as (listener, client):
        await client.send(bytes(300_000))
        with suppress(anyio.BrokenResourceError):
            for _ in range(10):
                await client.send(b"more of it")
                await anyio.sleep(0.01)
        assert await receive_all(client) == b"Thursday"
    assert listener.stats().shutdown_counts == {"normal": 1}


@pytest.mark.parametrize("style", ["coroutine", "callback"])
async def test_a_slow_reader_that_goes_on_sending_gets_every_byte_of_a_large_reply(serve: Serve, style: str) -> None:
    """Longer than `linger_timeout`, which counts from the moment when the peer has everything."""

    async def reply(connection: StreamConnection) -> None:
        await connection.send(b"a" * 4 * MIB)

    class Reply(CallbackHandler):
        def connection_made(self, connection: StreamConnection) -> None:
            connection.send_nowait(b"a" * 4 * MIB)
            connection.close_nowait()

    handler: Handler = reply if style == "coroutine" else Reply()
    async with serve(handler, linger_timeout=0.1) as (listener, _):
        client = connect_raw(listener)
        received = 0
        while True:
            with suppress(OSError):  # closed at last, and 4 MiB are in this kernel
                client.send(b"x")
            if received < 2 * MIB:
                await anyio.sleep(0.02)
            await anyio.wait_readable(client)
            try:
                data = client.recv(65_536)
            except ConnectionResetError:
                break
            if not data:
                break
            received += len(data)
        client.close()
        assert received == 4 * MIB


async def test_a_peer_that_never_finishes_holds_a_closing_connection_for_the_linger_timeout_only(serve: Serve) -> None:
    ends = Ends()

    async def reply(connection: StreamConnection) -> None:
        await connection.send(b"bye")

    async with serve(reply, linger_timeout=0.2, on_event=ends) as (listener, client):
        await ends.ended.wait()
        assert listener.connections == ()
        assert await receive_all(client) == b"bye"
    assert ends.reasons == ["normal"]
