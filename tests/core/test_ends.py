"""How connections end: half-closed, reset, by an error, too slow, silent, and what the peer still gets."""

from __future__ import annotations

import logging
import socket
import struct
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import TYPE_CHECKING, TypeAlias, cast

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import SocketAttribute, SocketStream
from tests.core.conftest import until

from esockd_core import CallbackHandler, Connection, ConnectionEvent, Handler, InvalidOption, Listener, StreamConnection

if TYPE_CHECKING:
    from esockd_core._carried import Carried

pytestmark = pytest.mark.anyio

Serve: TypeAlias = Callable[..., AbstractAsyncContextManager[tuple[Listener, SocketStream]]]

MIB = 1 << 20
MORE_THAN_KERNELS_HOLD = 16 * MIB  # tcp_wmem and tcp_rmem together end well below


async def receive_all(stream: SocketStream) -> bytes:
    return b"".join([data async for data in stream])


def raw(client: SocketStream) -> socket.socket:
    sock: socket.socket = client.extra(SocketAttribute.raw_socket)
    return sock


async def reset(client: SocketStream) -> None:
    """Close by RST."""
    raw(client).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await anyio.aclose_forcefully(client)


def connect_raw(listener: Listener) -> socket.socket:
    """A client that reads only when told to, whatever happened to the connection."""
    assert listener.port is not None
    client = socket.create_connection(("127.0.0.1", listener.port))
    client.setblocking(False)
    return client


class Ends:
    """Notes the reasons under which connections ended; to be given as `on_event`."""

    def __init__(self) -> None:
        self.reasons: list[str | None] = []
        self.kinds: list[str] = []
        self.started = anyio.Event()
        self.ended = anyio.Event()

    def __call__(self, event: ConnectionEvent) -> None:
        self.kinds.append(event.kind)
        if event.kind == "connection_started":
            self.started.set()
        else:
            self.reasons.append(event.reason)
            self.ended.set()


class Silent(CallbackHandler):
    """Takes what comes and answers nothing."""


async def silent(connection: Connection) -> None:
    async for _ in connection:
        pass


BOTH_STYLES = pytest.mark.parametrize("handler", [silent, Silent()], ids=["coroutine", "callback"])


# Half-closed connections


async def test_a_client_that_finished_sending_still_reads_the_reply(serve: Serve) -> None:
    async def handle(connection: StreamConnection) -> None:
        request = b"".join([data async for data in connection])
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
            await connection.send(request)

    async with serve(handle) as (_, client):
        await client.send(b"request ")
        await client.send_eof()
        assert await receive_all(client) == b"request request request "


async def test_a_handler_that_finished_sending_still_receives(serve: Serve) -> None:
    received = b""

    async def handle(connection: StreamConnection) -> None:
        nonlocal received
        await connection.send_eof()
        received = b"".join([data async for data in connection])

    async with serve(handle) as (_, client):
        assert await receive_all(client) == b""
        await client.send(b"after the end")
    assert received == b"after the end"


async def test_what_waited_is_still_sent_before_the_end_of_sending(serve: Serve) -> None:
    async def handle(connection: StreamConnection) -> None:
        connection.send_nowait(bytes(MORE_THAN_KERNELS_HOLD))
        await connection.send_eof()
        assert b"".join([data async for data in connection]) == b"thanks"

    async with serve(handle) as (listener, client):
        assert len(await receive_all(client)) == MORE_THAN_KERNELS_HOLD
        await client.send(b"thanks")
    assert listener.stats().shutdown_counts == {"normal": 1}


# The last reply


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


# The peer goes away


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


# Errors of handlers


async def fail(connection: StreamConnection) -> None:
    await connection.receive()
    raise LookupError("no such key")


async def fail_after_closing(connection: StreamConnection) -> None:
    await connection.receive()
    await connection.aclose()
    raise LookupError("no such key")


async def fail_in_a_task(connection: StreamConnection) -> None:
    async with anyio.create_task_group() as task_group:
        task_group.start_soon(fail, connection)


def not_even_a_coroutine(connection: StreamConnection) -> None:
    raise LookupError("no such key")


class Failing(CallbackHandler):
    def data_received(self, connection: StreamConnection, data: bytes) -> None:
        raise LookupError("no such key")


@pytest.mark.parametrize("handler", [fail, fail_after_closing, fail_in_a_task, not_even_a_coroutine, Failing()])
async def test_an_error_of_a_handler_ends_its_own_connection_is_logged_once_and_counted(
    serve: Serve, handler: Handler, caplog: pytest.LogCaptureFixture
) -> None:
    ends = Ends()
    async with serve(handler, on_event=ends) as (listener, client):
        port = raw(client).getsockname()[1]
        with suppress(anyio.BrokenResourceError):
            await client.send(b"go")
        assert await receive_all(client) == b""
        await client.aclose()
        await ends.ended.wait()
        assert listener.state == "running"
    assert ends.reasons == ["handler_error"]
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert f"('127.0.0.1', {port})" in record.getMessage()
    assert "no such key" in caplog.text


@pytest.mark.parametrize("wrong", [None, 5, Silent], ids=repr)
async def test_what_cannot_be_a_handler_is_refused_at_once(wrong: Handler) -> None:
    with pytest.raises(InvalidOption, match="it is a coroutine function, or an instance of CallbackHandler"):
        Listener("test", 0, wrong)


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


# Timeouts


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


async def test_a_slow_peer_that_takes_something_now_and_then_is_not_closed(serve: Serve) -> None:
    async def handle(connection: StreamConnection) -> None:
        await connection.send(bytes(MORE_THAN_KERNELS_HOLD))

    async with serve(handle, send_timeout=0.6, linger_timeout=0.6) as (listener, client):
        received = 0
        for _ in range(10):
            await anyio.sleep(0.08)
            for _ in range(16):
                received += len(await client.receive(65_536))
        received += len(await receive_all(client))
    assert received == MORE_THAN_KERNELS_HOLD
    assert listener.stats().shutdown_counts == {"normal": 1}


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


async def test_a_peer_that_slowly_takes_a_large_reply_is_not_idle(serve: Serve) -> None:
    async def handle(connection: StreamConnection) -> None:
        connection.send_nowait(bytes(MORE_THAN_KERNELS_HOLD))
        async for _ in connection:
            pass

    async with serve(handle, idle_timeout=0.6) as (listener, client):
        received = 0
        for _ in range(10):
            await anyio.sleep(0.08)
            for _ in range(16):
                received += len(await client.receive(65_536))
        while received < MORE_THAN_KERNELS_HOLD:
            received += len(await client.receive(65_536))
    assert listener.stats().shutdown_counts == {"normal": 1}


async def test_a_lost_connection_still_names_its_peer_and_the_sweep_can_look_at_it(serve: Serve) -> None:
    seen: list[object] = []

    async def lose(connection: StreamConnection) -> None:
        connection.abort()
        with pytest.raises(anyio.ClosedResourceError):
            await connection.receive()
        await anyio.sleep(0.05)  # until the event loop has let go of the socket
        seen.extend((connection.extra(SocketAttribute.remote_address), connection.extra(SocketAttribute.local_port)))
        seen.append(cast("Carried", connection).undelivered_bytes())

    async with serve(lose) as (listener, client):
        await until(lambda: len(seen) == 3)
        assert seen == [client.extra(SocketAttribute.local_address), listener.port, 0]
