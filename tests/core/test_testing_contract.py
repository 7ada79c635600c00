"""A connection in memory is to its handler what a listener's connection is: each test runs on both."""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

import anyio
import pytest
from anyio.abc import ByteStream, SocketAttribute
from anyio.lowlevel import checkpoint

from esockd_core import CallbackHandler, Handler, ListenerOptions, StreamConnection, TlsOptions, open_listener
from esockd_core.testing import exchange, memory_connection, reset

pytestmark = pytest.mark.anyio

MORE_THAN_KERNELS_HOLD = 16 << 20  # tcp_wmem and tcp_rmem together end well below


@dataclass
class Link:
    """A connection as a test holds it: the client's end, and how it ended."""

    peer: ByteStream
    reset: Callable[[], Awaitable[None]]
    connections: Callable[[], Any]
    reason: str | None = None

    async def receive_exactly(self, count: int) -> bytes:
        received = b""
        while len(received) < count:
            received += await self.peer.receive()
        return received

    async def receive_all(self) -> bytes:
        return b"".join([data async for data in self.peer])


Connect: TypeAlias = Callable[..., AbstractAsyncContextManager[Link]]


@asynccontextmanager
async def in_memory(handler: Handler, **options: Any) -> AsyncIterator[Link]:
    connection = memory_connection(options=ListenerOptions(**options))
    with anyio.fail_after(20):
        async with connection.served_by(handler) as peer:

            async def reset_peer() -> None:
                peer.reset()

            link = Link(peer, reset_peer, lambda: [connection])
            yield link
    link.reason = connection.reason


@asynccontextmanager
async def over_loopback(handler: Handler, **options: Any) -> AsyncIterator[Link]:
    with anyio.fail_after(20):
        async with open_listener("test", "127.0.0.1:0", handler, **options) as listener:
            assert listener.port is not None
            async with await anyio.connect_tcp("127.0.0.1", listener.port) as client:
                link = Link(client, lambda: reset(client), lambda: listener.connections)
                yield link
    (link.reason,) = listener.stats().shutdown_counts


@pytest.fixture(params=[in_memory, over_loopback], ids=["memory", "listener"])
def connect(request: pytest.FixtureRequest) -> Connect:
    chosen: Connect = request.param
    return chosen


class Notes(list[str]):
    """What happened, in order."""

    def has(self, *expected: str) -> bool:
        return self == list(expected)

    async def error_of(self, action: Awaitable[object]) -> None:
        """Note the name of the error, or what was returned."""
        try:
            returned = await action
        except Exception as error:  # noqa: BLE001
            self.append(type(error).__name__)
        else:
            self.append(repr(returned))

    async def until(self, *expected: str) -> None:
        while not set(expected) <= set(self):  # noqa: ASYNC110
            await anyio.sleep(0.005)


async def settle() -> None:
    """Let every task come to where it waits: `anyio.wait_all_tasks_blocked` may find none of a listener at rest."""
    for _ in range(20):
        await checkpoint()


async def echo(connection: StreamConnection) -> None:
    async for data in connection:
        await connection.send(data)


class Echo(CallbackHandler):
    def data_received(self, connection: StreamConnection, data: bytes) -> None:
        connection.send_nowait(data)


BOTH_STYLES = pytest.mark.parametrize("handler", [echo, Echo()], ids=["coroutine", "callback"])


# Both styles


@BOTH_STYLES
async def test_what_is_sent_comes_back_and_the_end_is_normal(connect: Connect, handler: Handler) -> None:
    async with connect(handler) as link:
        await link.peer.send(b"hello")
        assert await link.receive_exactly(5) == b"hello"
        assert await exchange(link.peer, b"bye") == b"bye"
    assert link.reason == "normal"


@BOTH_STYLES
async def test_a_client_that_just_leaves_is_a_normal_end(connect: Connect, handler: Handler) -> None:
    async with connect(handler) as link:
        await link.peer.send(b"x")
        await link.receive_exactly(1)
        await link.peer.aclose()
    assert link.reason == "normal"


@BOTH_STYLES
async def test_a_mebibyte_goes_each_way_at_once(connect: Connect, handler: Handler) -> None:
    payload = random.Random(1).randbytes(1 << 20)

    async def pour() -> None:
        for at in range(0, len(payload), 50_000):
            await link.peer.send(payload[at : at + 50_000])
        await link.peer.send_eof()

    async with connect(handler) as link, anyio.create_task_group() as tasks:
        tasks.start_soon(pour)
        assert await link.receive_all() == payload
    assert link.reason == "normal"


@BOTH_STYLES
async def test_counts_are_of_bytes_in_both_directions(connect: Connect, handler: Handler) -> None:
    async with connect(handler) as link:
        await link.peer.send(b"hello")
        await link.receive_exactly(5)
        (connection,) = link.connections()
        assert (connection.bytes_in, connection.bytes_out) == (5, 5)
        assert connection.state == "open"
        assert not connection.draining


@BOTH_STYLES
async def test_a_reset_is_counted_as_one(connect: Connect, handler: Handler) -> None:
    async with connect(handler) as link:
        await link.peer.send(b"x")
        await link.receive_exactly(1)
        await link.reset()
    assert link.reason == "reset"


@BOTH_STYLES
async def test_an_idle_connection_is_closed_after_the_idle_timeout(connect: Connect, handler: Handler) -> None:
    async with connect(handler, idle_timeout=0.1, linger_timeout=0.1) as link:
        with suppress(anyio.BrokenResourceError):
            assert await link.receive_all() == b""
    assert link.reason == "idle_timeout"


@BOTH_STYLES
async def test_an_abort_from_outside_names_its_reason(connect: Connect, handler: Handler) -> None:
    async with connect(handler) as link:
        await link.peer.send(b"x")
        await link.receive_exactly(1)
        link.connections()[0].abort("banned")
        with suppress(anyio.BrokenResourceError):
            assert await link.receive_all() == b""
    assert link.reason == "banned"


@BOTH_STYLES
async def test_a_close_from_outside_is_orderly_and_names_its_reason(connect: Connect, handler: Handler) -> None:
    async with connect(handler) as link:
        await link.peer.send(b"x")
        await link.receive_exactly(1)
        (connection,) = link.connections()
        connection.close_nowait("enough")
        connection.close_nowait("later")
        assert connection.state == "closing"
        assert await link.receive_all() == b""
    assert connection.state == "closed"
    assert link.reason == "enough"


@BOTH_STYLES
async def test_a_peer_that_does_not_finish_is_waited_for_as_long_as_the_linger_timeout(
    connect: Connect, handler: Handler
) -> None:
    async with connect(handler, linger_timeout=0.1) as link:
        await link.peer.send(b"x")
        await link.receive_exactly(1)
        (connection,) = link.connections()
        connection.close_nowait()
        while connection.state != "closed":  # noqa: ASYNC110
            await anyio.sleep(0.01)
    assert link.reason == "normal"


# Coroutine handlers: receiving


async def test_receive_gives_at_most_what_was_asked_for(connect: Connect) -> None:
    notes = Notes()

    async def handle(connection: StreamConnection) -> None:
        await notes.error_of(connection.receive(0))
        await notes.error_of(connection.receive(1))
        await notes.error_of(connection.receive(2))
        await notes.error_of(connection.receive())

    async with connect(handle) as link:
        await link.peer.send(b"abcdef")
        await link.receive_all()
    assert notes.has("ValueError", "b'a'", "b'bc'", "b'def'")


async def test_the_end_of_the_stream_is_told_again_and_again(connect: Connect) -> None:
    notes = Notes()

    async def handle(connection: StreamConnection) -> None:
        for _ in range(3):
            await notes.error_of(connection.receive())
        await connection.send(b"still open")

    async with connect(handle) as link:
        assert await exchange(link.peer, b"last") == b"still open"
    assert notes.has("b'last'", "EndOfStream", "EndOfStream")


async def test_one_task_receives_at_a_time(connect: Connect) -> None:
    notes = Notes()

    async def handle(connection: StreamConnection) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(notes.error_of, connection.receive())
            await settle()
            await notes.error_of(connection.receive())
            await connection.send(b"!")

    async with connect(handle) as link:
        await link.receive_exactly(1)
        await link.peer.send(b"x")
        await link.receive_all()
    assert notes.has("BusyResourceError", "b'x'")


@pytest.mark.parametrize("seed", range(3))
async def test_receives_cancelled_at_random_moments_lose_no_byte(connect: Connect, seed: int) -> None:
    payload = random.Random(seed).randbytes(20_000)
    received = bytearray()

    async def handle(connection: StreamConnection) -> None:
        chance = random.Random(seed)
        while True:
            with anyio.move_on_after(chance.choice([0, 0, 0.0005, 0.001])):
                try:
                    received.extend(await connection.receive(chance.randrange(1, 700)))
                except anyio.EndOfStream:
                    return

    async with connect(handle) as link:
        chance = random.Random(seed + 1)
        at = 0
        while at < len(payload):
            size = chance.randrange(1, 900)
            await link.peer.send(payload[at : at + size])
            at += size
            await anyio.sleep(chance.choice([0, 0, 0.0005]))
        await link.peer.send_eof()
        await link.receive_all()
    assert bytes(received) == payload
    assert link.reason == "normal"


async def test_a_cancelled_scope_takes_nothing_and_sends_nothing(connect: Connect) -> None:
    async def handle(connection: StreamConnection) -> None:
        first = await connection.receive(1)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await connection.receive()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await connection.send(b"never")
        await connection.send(first + await connection.receive())

    async with connect(handle) as link:
        await link.peer.send(b"abc")
        assert await link.receive_all() == b"abc"


async def test_a_waiting_receive_ends_when_another_task_closes(connect: Connect) -> None:
    notes = Notes()

    async def handle(connection: StreamConnection) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(notes.error_of, connection.receive())
            await settle()
            await connection.aclose()
            await connection.aclose()
        await notes.error_of(connection.receive())
        await notes.error_of(connection.send(b"x"))
        await notes.error_of(connection.send_eof())

    async with connect(handle) as link:
        assert await link.receive_all() == b""
    assert notes.has(*["ClosedResourceError"] * 4)
    assert link.reason == "normal"


async def test_what_came_before_a_reset_is_received_and_then_the_reset_is_told(connect: Connect) -> None:
    notes = Notes()

    async def handle(connection: StreamConnection) -> None:
        await connection.send(b"!")
        await notes.error_of(connection.receive())
        await notes.error_of(connection.receive())
        await notes.error_of(connection.receive())
        await notes.error_of(connection.send(b"x"))
        notes.append(connection.state)

    async with connect(handle) as link:
        await link.receive_exactly(1)
        await link.peer.send(b"last words")
        await notes.until("b'last words'")
        await link.reset()
        await notes.until("closed")
    assert notes.has("b'last words'", *["BrokenResourceError"] * 3, "closed")
    assert link.reason == "normal"


async def test_what_came_before_a_reset_can_be_received_after_it(connect: Connect) -> None:
    notes, gate = Notes(), anyio.Event()

    async def handle(connection: StreamConnection) -> None:
        await connection.receive(1)
        await gate.wait()
        await notes.error_of(connection.receive())
        await notes.error_of(connection.receive())

    async with connect(handle) as link:
        await link.peer.send(b"1")
        await link.peer.send(b"last words")
        await settle()
        await link.reset()
        await settle()
        gate.set()
        await notes.until("BrokenResourceError")
    assert notes.has("b'last words'", "BrokenResourceError")


async def test_what_was_not_received_before_closing_is_not_received_after(connect: Connect) -> None:
    notes = Notes()

    async def handle(connection: StreamConnection) -> None:
        await connection.receive(1)
        connection.close_nowait()
        await notes.error_of(connection.receive())

    async with connect(handle) as link:
        await link.peer.send(b"abc")
        assert await link.receive_all() == b""
    assert notes.has("ClosedResourceError")


async def test_who_sends_to_a_client_that_left_is_told_at_the_second_try_at_the_latest(connect: Connect) -> None:
    notes = Notes()

    async def handle(connection: StreamConnection) -> None:
        async for _ in connection:
            pass
        await notes.error_of(connection.send(b"one"))
        with suppress(anyio.EndOfStream):  # an end that was told already may be told again
            await connection.receive()
        while True:
            await connection.send(b"two")
            await anyio.sleep(0.005)

    async with connect(handle) as link:
        await link.peer.aclose()
        await notes.until("None")
    assert link.reason == "reset"


# Coroutine handlers: sending


async def test_send_waits_for_a_peer_that_does_not_read(connect: Connect) -> None:
    notes = Notes()

    async def handle(connection: StreamConnection) -> None:
        with anyio.move_on_after(0.1):
            await connection.send(bytes(MORE_THAN_KERNELS_HOLD))
            notes.append("sent")
        await connection.send(b"end")

    async with connect(handle) as link:
        await anyio.sleep(0.2)
        assert not notes
        assert await link.receive_all() == bytes(MORE_THAN_KERNELS_HOLD) + b"end"
    assert link.reason == "normal"


async def test_a_send_behind_a_cancelled_one_waits_before_it_takes_its_bytes(connect: Connect) -> None:
    async def handle(connection: StreamConnection) -> None:
        for data in (bytes(MORE_THAN_KERNELS_HOLD), b"never"):
            with anyio.move_on_after(0.05):
                await connection.send(data)
        await connection.send(b"end")

    async with connect(handle) as link:
        await anyio.sleep(0.2)
        assert await link.receive_all() == bytes(MORE_THAN_KERNELS_HOLD) + b"end"


async def test_send_nowait_takes_all_or_nothing(connect: Connect) -> None:
    notes = Notes()

    async def handle(connection: StreamConnection) -> None:
        connection.send_nowait(bytes(MORE_THAN_KERNELS_HOLD))
        try:
            connection.send_nowait(b"too much")
        except anyio.WouldBlock:
            notes.append("WouldBlock")
        await connection.send(b"end")

    async with connect(handle) as link:
        assert await link.receive_all() == bytes(MORE_THAN_KERNELS_HOLD) + b"end"
    assert notes.has("WouldBlock")


async def test_a_buffer_that_changes_later_was_sent_as_it_was(connect: Connect) -> None:
    async def handle(connection: StreamConnection) -> None:
        buffer = bytearray(b"abc")
        await connection.send(buffer)  # type: ignore[arg-type]
        connection.send_nowait(buffer)  # type: ignore[arg-type]
        buffer[:] = b"xyz"

    async with connect(handle) as link:
        assert await link.receive_all() == b"abcabc"


async def test_what_is_no_bytes_is_a_type_error_and_nothing_is_allowed(connect: Connect) -> None:
    notes = Notes()

    async def handle(connection: StreamConnection) -> None:
        await notes.error_of(connection.send("text"))  # type: ignore[arg-type]
        await notes.error_of(connection.send(b""))

    async with connect(handle) as link:
        assert await link.receive_all() == b""
    assert notes.has("TypeError", "None")


async def test_who_finished_sending_still_receives(connect: Connect) -> None:
    notes = Notes()

    async def handle(connection: StreamConnection) -> None:
        await connection.send(b"bye")
        await connection.send_eof()
        await connection.send_eof()
        await notes.error_of(connection.send(b"x"))
        await notes.error_of(connection.receive())

    async with connect(handle) as link:
        assert await link.receive_all() == b"bye"
        await link.peer.send(b"after the end")
        await notes.until("b'after the end'")
    assert notes.has("ClosedResourceError", "b'after the end'")


async def test_a_reply_survives_what_nobody_read(connect: Connect) -> None:
    async def handle(connection: StreamConnection) -> None:
        await connection.receive(1)
        await connection.send(b"Thursday")

    async with connect(handle) as link:
        await link.peer.send(bytes(50_000))
        with suppress(anyio.BrokenResourceError):
            for _ in range(5):
                await link.peer.send(b"more of it")
        assert await link.receive_all() == b"Thursday"
    assert link.reason == "normal"


async def test_a_peer_that_takes_nothing_is_closed_after_the_send_timeout(connect: Connect) -> None:
    notes = Notes()

    async def handle(connection: StreamConnection) -> None:
        await notes.error_of(connection.send(bytes(MORE_THAN_KERNELS_HOLD)))

    async with connect(handle, send_timeout=0.2) as link:
        await notes.until("BrokenResourceError")
    assert link.reason == "send_timeout"


# Coroutine handlers: ends


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


# What it says of itself


async def test_its_names_are_those_of_anyios_streams(connect: Connect) -> None:
    notes = Notes()

    async def handle(connection: StreamConnection) -> None:
        assert isinstance(connection.peername, tuple)
        assert isinstance(connection.sockname, tuple)
        assert connection.extra(SocketAttribute.remote_address) == connection.peername == connection.socket_peername
        assert connection.extra(SocketAttribute.local_address) == connection.sockname
        assert connection.extra(SocketAttribute.remote_port) == connection.peername[1]
        assert connection.extra(SocketAttribute.local_port) == connection.sockname[1]
        assert connection.proxy is None
        assert connection.tls is None
        assert connection.id > 0
        assert connection.opened_at > 0
        notes.append(connection.state)

    async with connect(handle) as link:
        await link.receive_all()
    assert notes.has("open")


# Callback handlers


class Recorder(CallbackHandler):
    """Notes each callback; `fails_in` names one that raises."""

    def __init__(self, fails_in: str = "") -> None:
        self.notes = Notes()
        self.fails_in = fails_in
        self.connection: StreamConnection | None = None

    def note(self, name: str, detail: str = "") -> None:
        self.notes.append(name + detail)
        if name == self.fails_in:
            raise ZeroDivisionError(name)

    def connection_made(self, connection: StreamConnection) -> None:
        self.connection = connection
        self.note("made")

    def data_received(self, connection: StreamConnection, data: bytes) -> None:
        self.note("data", f" {data!r}")

    def eof_received(self, connection: StreamConnection) -> None:
        self.note("eof")
        super().eof_received(connection)

    def pause_writing(self, connection: StreamConnection) -> None:
        self.note("pause")
        super().pause_writing(connection)

    def resume_writing(self, connection: StreamConnection) -> None:
        self.note("resume")
        super().resume_writing(connection)

    def drain_requested(self, connection: StreamConnection) -> None:
        self.note("drain")
        super().drain_requested(connection)

    def connection_lost(self, connection: StreamConnection, error: Exception | None) -> None:
        self.note("lost", f" {None if error is None else type(error).__name__}")


async def test_callbacks_come_in_order_and_the_last_one_once(connect: Connect) -> None:
    recorder = Recorder()
    async with connect(recorder) as link:
        await link.peer.send(b"abc")
        await recorder.notes.until("data b'abc'")
        await link.peer.send_eof()
        assert await link.receive_all() == b""
    assert recorder.notes.has("made", "data b'abc'", "eof", "lost None")
    assert link.reason == "normal"


async def test_callbacks_are_told_of_a_reset_with_its_error(connect: Connect) -> None:
    recorder = Recorder()
    async with connect(recorder) as link:
        await link.peer.send(b"abc")
        await recorder.notes.until("data b'abc'")
        await link.reset()
        await recorder.notes.until("lost ConnectionResetError")
    assert recorder.notes.has("made", "data b'abc'", "lost ConnectionResetError")
    assert link.reason == "reset"


async def test_callbacks_are_told_of_a_drain(connect: Connect) -> None:
    recorder = Recorder()
    async with connect(recorder) as link:
        await link.peer.send(b"abc")
        await recorder.notes.until("data b'abc'")
        assert recorder.connection is not None
        link.connections()[0].request_draining()
        link.connections()[0].request_draining()
        assert await link.receive_all() == b""
    assert recorder.notes.has("made", "data b'abc'", "drain", "lost None")
    assert link.reason == "shutdown"


async def test_callbacks_that_do_not_heed_a_drain_are_closed_after_the_shutdown_timeout(connect: Connect) -> None:
    class Stay(Recorder):
        def drain_requested(self, connection: StreamConnection) -> None:
            self.note("drain")

        def eof_received(self, connection: StreamConnection) -> None:
            self.note("eof")

    recorder = Stay()
    async with connect(recorder, shutdown_timeout=0.05) as link:
        await recorder.notes.until("made")
        await link.peer.send_eof()
        await recorder.notes.until("eof")
    assert recorder.notes.has("made", "eof", "drain", "lost None")
    assert link.reason == "shutdown"


@pytest.mark.parametrize("where", ["made", "data", "eof", "drain", "lost"])
async def test_an_error_in_any_callback_ends_the_connection_as_a_handlers_error(connect: Connect, where: str) -> None:
    recorder = Recorder(fails_in=where)
    async with connect(recorder) as link:
        await recorder.notes.until("made")
        with suppress(anyio.BrokenResourceError):
            await link.peer.send(b"abc")
        if where == "drain":
            await recorder.notes.until("data b'abc'")
            link.connections()[0].request_draining()
        with suppress(anyio.BrokenResourceError):
            await link.peer.send_eof()
        assert await link.receive_all() == b""
    assert recorder.notes[-1] == "lost None"
    assert recorder.notes.count("lost None") == 1
    assert link.reason == "handler_error"


async def test_writing_is_paused_and_resumed_for_a_peer_that_does_not_read(connect: Connect) -> None:
    class Pour(Recorder):
        def connection_made(self, connection: StreamConnection) -> None:
            super().connection_made(connection)
            connection.send_nowait(bytes(MORE_THAN_KERNELS_HOLD))
            self.note("taken")

        def resume_writing(self, connection: StreamConnection) -> None:
            super().resume_writing(connection)
            connection.close_nowait()

    recorder = Pour()
    async with connect(recorder) as link:
        await recorder.notes.until("taken")
        assert recorder.notes.has("made", "pause", "taken")
        assert await link.receive_all() == bytes(MORE_THAN_KERNELS_HOLD)
    assert recorder.notes.has("made", "pause", "taken", "resume", "lost None")


async def test_a_callback_can_hold_data_back(connect: Connect) -> None:
    class Slow(Recorder):
        def data_received(self, connection: StreamConnection, data: bytes) -> None:
            super().data_received(connection, data)
            connection.pause_reading()
            connection.pause_reading()

    recorder = Slow()
    async with connect(recorder) as link:
        await link.peer.send(b"one")
        await recorder.notes.until("data b'one'")
        await link.peer.send(b"two")
        await settle()
        assert recorder.notes.has("made", "data b'one'")
        assert recorder.connection is not None
        recorder.connection.resume_reading()
        recorder.connection.resume_reading()
        await recorder.notes.until("data b'two'")


async def test_a_callback_handler_neither_receives_nor_starts_tls(
    connect: Connect,
) -> None:
    recorder = Recorder()
    async with connect(recorder):
        await recorder.notes.until("made")
        assert recorder.connection is not None
        with pytest.raises(RuntimeError, match="data_received"):
            await recorder.connection.receive()
        with pytest.raises(RuntimeError, match="start_tls"):
            await recorder.connection.start_tls(TlsOptions.__new__(TlsOptions))
