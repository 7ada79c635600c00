"""Callback handlers: the order of calls, backpressure without a task, and errors in each of them."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio.lowlevel import checkpoint
from tests.core.conftest import MORE_THAN_KERNELS_HOLD, Serve, receive_all

from esockd_core import CallbackHandler, Listener, StreamConnection

if TYPE_CHECKING:
    from anyio.abc import SocketStream


pytestmark = pytest.mark.anyio


class Recorder(CallbackHandler):
    """Writes down every call, and raises in the one it is told to."""

    def __init__(self, fails_in: str = "") -> None:
        self.calls: list[str] = []
        self.fails_in = fails_in
        self.error: Exception | None = None
        self.made = anyio.Event()
        self.lost = anyio.Event()

    def note(self, name: str) -> None:
        if not self.calls or self.calls[-1] != name:  # a stream may come in any number of pieces
            self.calls.append(name)
        if name == self.fails_in:
            raise LookupError("no such key")

    def connection_made(self, connection: StreamConnection) -> None:
        self.made.set()
        self.note("connection_made")

    def data_received(self, connection: StreamConnection, data: bytes) -> None:
        self.note("data_received")
        if data.startswith(b"much"):
            connection.send_nowait(bytes(MORE_THAN_KERNELS_HOLD))

    def eof_received(self, connection: StreamConnection) -> None:
        self.note("eof_received")
        super().eof_received(connection)

    def pause_writing(self, connection: StreamConnection) -> None:
        self.note("pause_writing")
        super().pause_writing(connection)

    def resume_writing(self, connection: StreamConnection) -> None:
        self.note("resume_writing")
        super().resume_writing(connection)

    def drain_requested(self, connection: StreamConnection) -> None:
        self.note("drain_requested")
        super().drain_requested(connection)

    def connection_lost(self, connection: StreamConnection, error: Exception | None) -> None:
        self.error = error
        self.lost.set()
        self.calls.append("connection_lost")
        if self.fails_in == "connection_lost":
            raise LookupError("no such key")


async def talk(listener: Listener, handler: Recorder, client: SocketStream) -> None:
    """Bring about every callback there is, as far as the handler lets it."""
    with suppress(anyio.BrokenResourceError):
        await client.send(b"little")
        await checkpoint()
        await client.send(b"much")
        with suppress(anyio.EndOfStream):
            received = 0
            while received < MORE_THAN_KERNELS_HOLD:
                received += len(await client.receive())
        if handler.fails_in in ("eof_received", "connection_lost"):
            await client.send_eof()
            await receive_all(client)
    await listener.close()


async def test_callbacks_come_in_order_and_the_last_one_once(serve: Serve) -> None:
    handler = Recorder()
    async with serve(handler, linger_timeout=0.1) as (listener, client), anyio.create_task_group() as task_group:
        task_group.start_soon(talk, listener, handler, client)
        await handler.lost.wait()
    assert handler.calls == [
        "connection_made",
        "data_received",
        "pause_writing",
        "resume_writing",
        "drain_requested",
        "connection_lost",
    ]
    assert handler.error is None
    assert listener.stats().shutdown_counts == {"shutdown": 1}


@pytest.mark.parametrize(
    "name",
    [
        "connection_made",
        "data_received",
        "eof_received",
        "pause_writing",
        "resume_writing",
        "drain_requested",
        "connection_lost",
    ],
)
async def test_an_error_in_any_callback_ends_its_connection_only(
    serve: Serve, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    handler = Recorder(fails_in=name)
    async with serve(handler, linger_timeout=0.1) as (listener, client):
        await handler.made.wait()
        await talk(listener, handler, client)
        await client.aclose()
    assert handler.calls[0] == "connection_made"
    assert handler.calls.count("connection_lost") == 1
    assert handler.calls[-1] == "connection_lost"
    counts = listener.stats().shutdown_counts
    assert counts in ({"handler_error": 1}, {"shutdown": 1} if name == "drain_requested" else {"handler_error": 1})
    (record,) = caplog.records
    assert "no such key" in record.getMessage()


async def test_the_default_stops_reading_from_a_client_that_does_not_read(serve: Serve) -> None:
    most_unsent = 0

    class Echo(CallbackHandler):
        def data_received(self, connection: StreamConnection, data: bytes) -> None:
            nonlocal most_unsent
            connection.send_nowait(data)
            most_unsent = max(most_unsent, connection.unsent_bytes())  # type: ignore[attr-defined]

    async with serve(Echo()) as (listener, client):
        pushed = 0
        with suppress(TimeoutError):
            while pushed < 1 << 27:
                with anyio.fail_after(0.3):  # by then it is stuck; were it only slow, the assertions hold all the same
                    await client.send(bytes(1 << 18))
                pushed += 1 << 18
        assert pushed < 1 << 27
        assert most_unsent <= 65_536 + 262_144
        # And everything that was taken comes back, so nothing was lost on the way.
        await client.send_eof()
        assert len(await receive_all(client)) == listener.stats().bytes_in


async def test_pause_and_resume_of_reading_hold_data_back(serve: Serve) -> None:
    received: list[bytes] = []

    class Pausing(CallbackHandler):
        connection: StreamConnection

        def connection_made(self, connection: StreamConnection) -> None:
            connection.pause_reading()
            connection.pause_reading()
            self.connection = connection
            made.set()

        def data_received(self, connection: StreamConnection, data: bytes) -> None:
            received.append(data)

    handler = Pausing()
    made = anyio.Event()
    async with serve(handler) as (_, client):
        await client.send(b"held back")
        await made.wait()
        for _ in range(5):
            await anyio.wait_all_tasks_blocked()
        assert received == []
        handler.connection.resume_reading()
        handler.connection.resume_reading()
        await client.send_eof()
        assert await receive_all(client) == b""
    assert received == [b"held back"]


async def test_the_end_of_the_peer_is_told_once_whatever_is_paused_after_it(serve: Serve) -> None:
    ends = 0

    class Streaming(CallbackHandler):
        def eof_received(self, connection: StreamConnection) -> None:
            nonlocal ends
            ends += 1
            connection.send_nowait(bytes(MORE_THAN_KERNELS_HOLD))  # pauses reading, and resumes it

        def resume_writing(self, connection: StreamConnection) -> None:
            super().resume_writing(connection)
            finished.set()

    finished = anyio.Event()
    async with serve(Streaming()) as (listener, client):
        await client.send_eof()
        received = 0
        while received < MORE_THAN_KERNELS_HOLD:
            received += len(await client.receive())
        await finished.wait()
        for _ in range(5):
            await anyio.wait_all_tasks_blocked()
        assert ends == 1
        listener.connections[0].close_nowait()
        assert await receive_all(client) == b""


async def test_a_callback_that_closes_is_not_interrupted_by_connection_lost(serve: Serve) -> None:
    calls: list[str] = []

    class Aborting(CallbackHandler):
        def data_received(self, connection: StreamConnection, data: bytes) -> None:
            calls.append("begin")
            connection.abort()
            with suppress(anyio.ClosedResourceError):
                connection.send_nowait(data)
            calls.append("end")

        def connection_lost(self, connection: StreamConnection, error: Exception | None) -> None:
            calls.append("lost")
            lost.set()

    lost = anyio.Event()
    async with serve(Aborting()) as (listener, client):
        await client.send(b"x")
        await lost.wait()
    assert calls == ["begin", "end", "lost"]
    assert listener.stats().shutdown_counts == {"aborted": 1}


async def test_connections_closed_by_the_callback_of_another_get_no_data_any_more(serve: Serve) -> None:
    """Whoever speaks first closes all the others, though their data came at the same time."""
    lost = 0
    survivors: list[StreamConnection] = []
    finished = anyio.Event()

    class LastOneStanding(CallbackHandler):
        def __init__(self) -> None:
            self.connections: set[StreamConnection] = set()
            self.closed: set[StreamConnection] = set()

        def connection_made(self, connection: StreamConnection) -> None:
            self.connections.add(connection)

        def data_received(self, connection: StreamConnection, data: bytes) -> None:
            assert connection not in self.closed
            survivors.append(connection)
            for other in self.connections:
                if other is not connection:
                    self.closed.add(other)
                    other.abort()

        def connection_lost(self, connection: StreamConnection, error: Exception | None) -> None:
            nonlocal lost
            self.connections.remove(connection)
            lost += 1
            if lost == 50:
                finished.set()

    handler = LastOneStanding()
    async with serve(handler) as (listener, client):
        assert listener.port is not None
        clients = [client] + [await anyio.connect_tcp("127.0.0.1", listener.port) for _ in range(50)]
        while len(handler.connections) < 51:
            await checkpoint()
        for each in clients:
            with suppress(anyio.BrokenResourceError):
                await each.send(b"x")
        await finished.wait()
        assert len(set(survivors)) == 1
        for each in clients:
            await anyio.aclose_forcefully(each)
    counts = listener.stats().shutdown_counts
    assert counts["aborted"] == 50
    assert sum(counts.values()) == 51


async def test_three_hundred_connections_are_served_by_one_object(serve: Serve) -> None:
    class Upper(CallbackHandler):
        def data_received(self, connection: StreamConnection, data: bytes) -> None:
            connection.send_nowait(data.upper())

    async with serve(Upper()) as (listener, first):
        assert listener.port is not None
        clients = [first] + [await anyio.connect_tcp("127.0.0.1", listener.port) for _ in range(299)]
        for number, client in enumerate(clients):
            await client.send(b"client %d" % number)
        for number, client in enumerate(clients):
            assert await client.receive() == b"CLIENT %d" % number
            await client.aclose()
    assert listener.stats().shutdown_counts == {"normal": 300}


async def test_receiving_is_not_for_callback_handlers(serve: Serve) -> None:
    made: list[StreamConnection] = []

    class Keeping(CallbackHandler):
        def connection_made(self, connection: StreamConnection) -> None:
            made.append(connection)

    async with serve(Keeping()) as (_, client):
        await client.send(b"x")
        while not made:
            await checkpoint()
        with pytest.raises(RuntimeError, match="data_received"):
            await made[0].receive()
        with pytest.raises(RuntimeError, match="data_received"):
            await made[0].__anext__()
        await made[0].send(b"but sending works")
        await made[0].send_eof()
        assert await receive_all(client) == b"but sending works"
