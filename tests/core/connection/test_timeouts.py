"""Peers that are too slow or silent: when they are closed, and when they are not."""

from __future__ import annotations

from contextlib import suppress

import anyio
import anyio.lowlevel
import pytest
from tests.core.conftest import MORE_THAN_KERNELS_HOLD, Serve, receive_all
from tests.core.connection.conftest import BOTH_STYLES, Ends, raw, silent

from esockd_core import CallbackHandler, Connection, ConnectionEvent, Handler, StreamConnection

pytestmark = pytest.mark.anyio


async def send_for_ever(connection: Connection) -> None:
    while True:
        await connection.send(bytes(65_536))


async def send_and_leave(connection: Connection) -> None:
    await connection.send(bytes(64))
    connection.send_nowait(bytes(MORE_THAN_KERNELS_HOLD))


async def send_a_little_and_wait(connection: StreamConnection) -> None:
    while connection.unsent_bytes() < 1_000:  # type: ignore[attr-defined]
        connection.send_nowait(bytes(1_000))
    async for _ in connection:
        pass


class SendAndWait(CallbackHandler):
    def connection_made(self, connection: StreamConnection) -> None:
        connection.send_nowait(bytes(MORE_THAN_KERNELS_HOLD))


@pytest.mark.parametrize(
    "handler",
    [send_for_ever, send_and_leave, send_a_little_and_wait, SendAndWait()],
    ids=["waiting", "closing", "below the mark", "callback"],
)
async def test_a_peer_that_takes_nothing_for_the_send_timeout_is_closed(
    serve: Serve, handler: Handler, caplog: pytest.LogCaptureFixture
) -> None:
    ends = Ends()
    async with serve(handler, send_timeout=0.3, on_event=ends) as (_, client):
        await ends.ended.wait()
        with suppress(anyio.BrokenResourceError):
            await receive_all(client)
    assert ends.reasons == ["send_timeout"]
    assert caplog.records == []


@BOTH_STYLES
async def test_a_silent_connection_is_closed_after_the_idle_timeout_and_a_talking_one_is_not(
    serve: Serve, handler: Handler, caplog: pytest.LogCaptureFixture
) -> None:
    ends = Ends()
    async with serve(handler, idle_timeout=0.4, on_event=ends) as (listener, client):
        assert listener.port is not None
        async with await anyio.connect_tcp("127.0.0.1", listener.port) as talking:
            while not ends.reasons:
                await talking.send(b"x")
                await anyio.sleep(0.01)
            assert ends.reasons == ["idle_timeout"]
            assert len(listener.connections) == 1
            assert listener.connections[0].peername == raw(talking).getsockname()
        with suppress(anyio.BrokenResourceError):
            await receive_all(client)
    assert ends.reasons == ["idle_timeout", "normal"]
    assert caplog.records == []


async def test_a_new_connection_has_the_whole_idle_timeout(serve: Serve) -> None:
    started = 0.0
    ended = 0.0

    def note(event: ConnectionEvent) -> None:
        nonlocal started, ended
        if event.kind == "connection_started":
            started = anyio.current_time()
        else:
            ended = anyio.current_time()
            over.set()

    over = anyio.Event()
    async with serve(silent, idle_timeout=0.4, on_event=note) as (_, _client):
        await over.wait()
    assert ended - started >= 0.4
