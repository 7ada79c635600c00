"""STARTTLS: back-pressure holds behind it as before it, and what is sent during the handshake arrives."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import pytest
from tests.core.conftest import MORE_THAN_KERNELS_HOLD, reasons, settle, until
from tests.core.tls.starttls import COMMAND, GO_AHEAD, VERSIONS, Client, serving
from tests.core.tls_clients import AUTHORITY, dial, run

from esockd_core import CallbackHandler, StreamConnection, TlsOptions

if TYPE_CHECKING:
    import socket

pytestmark = pytest.mark.anyio


class Filling(CallbackHandler):
    """Once it has TLS it sends until no more is taken, and counts what it is told."""

    def __init__(self, tls: TlsOptions) -> None:
        self.tls = tls
        self.told: list[str] = []
        self.taken = 0

    async def serve(self, connection: StreamConnection) -> None:
        await connection.receive(len(COMMAND))
        await connection.send(GO_AHEAD)
        await connection.start_tls(self.tls)
        self.tls_started(connection)
        async for _ in connection:
            pass

    def data_received(self, connection: StreamConnection, data: bytes) -> None:
        if data == COMMAND:
            connection.send_nowait(GO_AHEAD)
            connection.start_tls_nowait(self.tls)

    def tls_started(self, connection: StreamConnection) -> None:
        try:
            while self.taken < MORE_THAN_KERNELS_HOLD:
                connection.send_nowait(bytes(10_000))
                self.taken += 10_000
        except anyio.WouldBlock:
            self.told.append("full")

    def pause_writing(self, connection: StreamConnection) -> None:
        self.told.append("pause")

    def resume_writing(self, connection: StreamConnection) -> None:
        self.told.append("resume")
        connection.send_nowait(b"the end")
        connection.close_nowait()


@pytest.mark.parametrize("style", ["coroutine", "callback"])
async def test_send_nowait_takes_no_more_than_its_limit_behind_starttls(tls: TlsOptions, style: str) -> None:
    filling = Filling(tls)
    handler: Any = filling.serve if style == "coroutine" else filling
    buffers = {"write_buffer_bytes": 20_000, "write_limit_bytes": 200_000, "tcp": {"send_buffer_bytes": 50_000}}
    async with serving(handler, **buffers) as listener:
        with Client(listener) as client:
            await run(lambda: client.ask().shake())
            await until(lambda: "full" in filling.told)
            connection: Any = listener.connections[0]
            assert 20_000 < connection.unsent_bytes() <= 220_000
            if style == "callback":
                assert filling.told == ["pause", "full"]
                assert await run(lambda: len(client.read(MORE_THAN_KERNELS_HOLD))) == filling.taken + len(b"the end")
                assert filling.told == ["pause", "full", "resume"]
        await reasons(listener)


class FillingDuringTheHandshake(Filling):
    """Sends more during the handshake than the kernel will take, and then as much as it may."""

    async def serve(self, connection: StreamConnection) -> None:
        await connection.receive(len(COMMAND))
        await connection.send(GO_AHEAD)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(connection.start_tls, self.tls)
            await settle()
            connection.send_nowait(bytes(MORE_THAN_KERNELS_HOLD))
        self.tls_started(connection)
        async for _ in connection:
            pass

    def data_received(self, connection: StreamConnection, data: bytes) -> None:
        super().data_received(connection, data)
        if data == COMMAND:
            connection.send_nowait(bytes(MORE_THAN_KERNELS_HOLD))


@pytest.mark.parametrize("style", ["coroutine", "callback"])
async def test_what_waited_for_the_handshake_counts_as_unsent_behind_it(tls: TlsOptions, style: str) -> None:
    filling = FillingDuringTheHandshake(tls)
    handler: Any = filling.serve if style == "coroutine" else filling
    async with serving(handler, write_limit_bytes=200_000, tcp={"send_buffer_bytes": 50_000}) as listener:
        with Client(listener) as client:
            await run(lambda: client.ask().shake())
            await until(lambda: "full" in filling.told)
            assert filling.taken == 0
            connection: Any = listener.connections[0]
            with pytest.raises(anyio.WouldBlock):
                connection.send_nowait(b"more")
            if style == "callback":
                assert filling.told == ["pause", "full"]
                size = MORE_THAN_KERNELS_HOLD + len(b"the end")
                assert await run(lambda: len(client.read(size))) == size
                assert filling.told == ["pause", "full", "resume"]
        await reasons(listener)


class SpeakingDuringTheHandshake(CallbackHandler):
    """Sends while the handshake is going on, and finishes."""

    def __init__(self, tls: TlsOptions) -> None:
        self.tls = tls

    async def serve(self, connection: StreamConnection) -> None:
        await connection.receive(len(COMMAND))
        await connection.send(GO_AHEAD)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(connection.start_tls, self.tls)
            await anyio.lowlevel.checkpoint()
            await anyio.sleep(0.05)
            await connection.send(b"sent early")
            await connection.send_eof()
        async for _ in connection:
            pass

    def data_received(self, connection: StreamConnection, data: bytes) -> None:
        if data == COMMAND:
            connection.send_nowait(GO_AHEAD)
            connection.start_tls_nowait(self.tls)
            connection.send_nowait(b"sent early")

    def tls_started(self, connection: StreamConnection) -> None:
        connection.close_nowait()


@VERSIONS
@pytest.mark.parametrize("style", ["coroutine", "callback"])
async def test_what_is_sent_and_finished_during_the_handshake_arrives_whole(
    tls: TlsOptions, style: str, version: ssl.TLSVersion
) -> None:
    speaking = SpeakingDuringTheHandshake(tls)
    handler: Any = speaking.serve if style == "coroutine" else speaking

    def talk() -> bytes:
        with Client(listener, version) as client:
            client.ask()
            anyio.from_thread.run(anyio.sleep, 0.2)
            return client.shake().read(100)

    async with serving(handler) as listener:
        assert await run(talk) == b"sent early"
        assert await reasons(listener) == {"normal": 1}


@VERSIONS
@pytest.mark.parametrize("style", ["coroutine", "callback"])
async def test_what_is_sent_during_the_handshake_of_a_resumed_session_arrives_first(
    tls: TlsOptions, style: str, version: ssl.TLSVersion
) -> None:
    """The last message of a resumed handshake of TLS 1.2 is the client's: nothing of the server's follows it."""
    context = ssl.create_default_context()
    context.minimum_version = context.maximum_version = version
    AUTHORITY.configure_trust(context)

    def secure(session: ssl.SSLSession | None) -> ssl.SSLSocket:
        raw: socket.socket = dial(listener, COMMAND)
        assert raw.recv(len(GO_AHEAD)) == GO_AHEAD
        anyio.from_thread.run(anyio.sleep, 0.2)
        return context.wrap_socket(raw, server_hostname="localhost", session=session)

    def talk() -> tuple[bytes, bytes]:
        with secure(None) as first:
            before = first.recv(100)
            session = first.session
            first.unwrap().close()
        with secure(session) as second:
            assert second.session_reused
            after = second.recv(100)
            second.unwrap().close()
        return before, after

    speaking = SpeakingDuringTheHandshake(tls)
    handler: Any = speaking.serve if style == "coroutine" else speaking
    async with serving(handler) as listener:
        assert await run(talk) == (b"sent early", b"sent early")
        assert await reasons(listener, 2) == {"normal": 2}
