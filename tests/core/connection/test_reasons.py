"""Why a connection ended: one reason for each, whoever ended it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import pytest
from tests.core.conftest import EventCount, Serve, connect, connect_stream, echo, receive_all, until
from tests.core.connection.conftest import BOTH_STYLES, Ends, silent

from esockd_core import ConnectionEvent, StreamConnection, open_listener

if TYPE_CHECKING:
    from esockd_core import Handler, StreamConnection

if TYPE_CHECKING:
    from esockd_core import Handler


pytestmark = pytest.mark.anyio


async def test_a_connection_closed_from_outside_is_no_error_of_its_handler(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    ends = Ends()
    async with serve(silent, on_event=ends) as (listener, client):
        await ends.started.wait()
        await anyio.wait_all_tasks_blocked()
        listener.connections[0].close_nowait("kicked")
        assert await receive_all(client) == b""
        await client.aclose()
        await ends.ended.wait()
    assert ends.reasons == ["kicked"]
    assert caplog.records == []


@BOTH_STYLES
async def test_an_aborted_connection_ends_at_once_and_once(serve: Serve, handler: Handler) -> None:
    ends = Ends()
    async with serve(handler, on_event=ends) as (listener, client):
        await ends.started.wait()
        await anyio.wait_all_tasks_blocked()
        connection = listener.connections[0]
        connection.abort()
        connection.abort()
        connection.close_nowait()
        await ends.ended.wait()
        await connection.aclose()
        assert connection.state == "closed"
        with suppress(anyio.BrokenResourceError):
            assert await receive_all(client) == b""
    assert ends.reasons == ["aborted"]
    assert ends.kinds == ["connection_started", "connection_stopped"]


async def test_a_handler_names_its_own_reason(serve: Serve) -> None:
    async def handle(connection: StreamConnection) -> None:
        connection.close_nowait("bad greeting")

    async with serve(handle) as (listener, client):
        assert await receive_all(client) == b""
    assert listener.stats().shutdown_counts == {"bad greeting": 1}


async def test_each_connection_has_one_start_and_one_stop_however_it_ends(handler: Handler) -> None:
    with EventCount() as counts:
        async with open_listener(
            "echo",
            "127.0.0.1:0",
            handler,
            shutdown_timeout=0,
            linger_timeout=0,
            max_connections=3,
            on_event=counts.note,
        ) as listener:
            closed, aborted, left, refused = (connect(listener) for _ in range(4))
            await until(lambda: listener.stats().closed_max_limit == 1)
            closed.close()
            listener.connections[1].abort()
            await until(lambda: listener.stats().current_connections == 1)
        for client in (aborted, left, refused):
            client.close()
    assert sum(listener.stats().shutdown_counts.values()) == 3
    assert len(counts.reasons) == 3


async def test_a_hook_may_abort_other_connections_without_harm() -> None:
    connections: list[StreamConnection] = []

    def abort_all(event: ConnectionEvent) -> None:
        if event.kind == "connection_stopped":
            for connection in connections:
                connection.abort("hook")

    async def never_reads(connection: StreamConnection) -> None:
        connections.append(connection)
        while True:
            await connection.send(bytes(1_000_000))

    with anyio.fail_after(20):
        async with open_listener("test", "127.0.0.1:0", never_reads, send_timeout=0.3, on_event=abort_all) as listener:
            clients = [await connect_stream(listener) for _ in range(4)]
            await until(lambda: sum(listener.stats().shutdown_counts.values()) == 4)
            await listener.set_handler(echo)
            async with await connect_stream(listener) as client:
                await client.send(b"x")
                assert await client.receive() == b"x"
            for each in clients:
                await each.aclose()
