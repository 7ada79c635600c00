"""A connection in memory is to its handler what a listener's connection is: what callbacks are told."""

from __future__ import annotations

from contextlib import suppress

import anyio
import pytest
from tests.core.conftest import MORE_THAN_KERNELS_HOLD, settle
from tests.core.testing.conftest import Connect, Notes

from esockd_core import CallbackHandler, StreamConnection, TlsOptions

pytestmark = pytest.mark.anyio


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
