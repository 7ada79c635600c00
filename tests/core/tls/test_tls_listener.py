"""A listener for TLS: real sockets, Python's own TLS client in a thread, every backend and both handler styles."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import pytest
from tests.core.conftest import echo, reasons, until
from tests.core.tls.conftest import ask, encrypted, read, secure
from tests.core.tls_clients import client_context, dial, run
from tests.patience import PATIENCE_S

from esockd_core import (
    CallbackHandler,
    InvalidOption,
    Listener,
    ListenerOptions,
    StreamConnection,
    TlsOptions,
    handlers,
    open_listener,
)

if TYPE_CHECKING:
    from pathlib import Path

    from esockd_core import ConnectionEvent, Handler


pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_an_echo_and_an_orderly_end(handler: Handler, tls: TlsOptions, version: ssl.TLSVersion) -> None:
    async with encrypted(handler, tls) as listener:
        assert await run(lambda: ask(listener, b"hello", client_context(version))) == b"hello"
        assert await reasons(listener) == {"normal": 1}
        stats = listener.stats()
        assert (stats.bytes_in, stats.bytes_out) == (5, 5)


@pytest.mark.parametrize("size", [16_384, 100_000, 4_000_000])
async def test_large_data_crosses_whole_in_both_directions(handler: Handler, tls: TlsOptions, size: int) -> None:
    data = bytes(range(256)) * (size // 256)

    def transfer() -> bytes:
        received = bytearray()
        with secure(dial(listener), client_context()) as client:
            for at in range(0, len(data), 100_000):
                piece = data[at : at + 100_000]
                client.sendall(piece)
                received += read(client, len(piece))
        return bytes(received)

    async with encrypted(handler, tls) as listener:
        assert await run(transfer) == data


async def test_a_peer_that_does_not_read_is_waited_for(tls: TlsOptions) -> None:
    size = 8_000_000
    sent = 0

    async def pour(connection: StreamConnection) -> None:
        nonlocal sent
        while sent < size:
            await connection.send(bytes(100_000))
            sent += 100_000

    async with encrypted(pour, tls) as listener:
        with await run(lambda: secure(dial(listener), client_context())) as client:
            await until(lambda: sent > 0)
            held = -1
            while held != sent:
                held = sent
                await anyio.sleep(0.1)
            assert sent < size
            assert len(await run(lambda: read(client, size))) == size
            assert await run(lambda: client.recv(1)) == b""


async def test_a_handler_that_does_not_read_pauses_the_peer_and_loses_nothing(tls: TlsOptions) -> None:
    size = 20_000_000
    go = anyio.Event()
    pushed = received = 0

    async def read_late(connection: StreamConnection) -> None:
        nonlocal received
        await go.wait()
        async for data in connection:
            received += len(data)

    def push() -> None:
        nonlocal pushed
        with secure(dial(listener), client_context()) as client:
            while pushed < size:
                client.sendall(bytes(100_000))
                pushed += 100_000
            with suppress(OSError):
                client.unwrap()

    async with encrypted(read_late, tls) as listener, anyio.create_task_group() as task_group:
        task_group.start_soon(run, push)
        await until(lambda: pushed > 0)
        held = -1
        while held != pushed:
            held = pushed
            await anyio.sleep(0.1)
        assert held < size
        assert listener.connections[0].bytes_in < 1_000_000
        go.set()
        assert await reasons(listener) == {"normal": 1}
        assert received == size


async def test_receive_takes_as_little_as_it_is_asked_for(tls: TlsOptions) -> None:
    async def read_three(connection: StreamConnection) -> None:
        parts = []
        for _ in range(100):
            part = await connection.receive(3)
            assert len(part) <= 3
            parts.append(part)
        await connection.send(b"".join(parts))

    async with encrypted(read_three, tls) as listener:
        assert await run(lambda: ask(listener, b"abc" * 100, client_context())) == b"abc" * 100


async def test_our_close_notify_reaches_a_client_that_still_sends(tls: TlsOptions) -> None:
    """The last reply is not destroyed by input that nobody read."""

    async def reply(connection: StreamConnection) -> None:
        await connection.receive(1)
        await connection.send(b"goodbye")

    def talk() -> bytes:
        with secure(dial(listener), client_context()) as client:
            client.sendall(bytes(100_000))
            return read(client, 100)

    async with encrypted(reply, tls) as listener:
        assert await run(talk) == b"goodbye"


async def test_send_eof_leaves_the_other_direction_open(tls: TlsOptions) -> None:
    received: list[bytes] = []

    async def half_close(connection: StreamConnection) -> None:
        await connection.send(b"all I have")
        await connection.send_eof()
        received.extend([data async for data in connection])

    def talk() -> bytes:
        with secure(dial(listener), client_context()) as client:
            answer = read(client, 100)
            client.sendall(b"and I have more")
            with suppress(OSError):
                client.unwrap()
            return answer

    async with encrypted(half_close, tls) as listener:
        assert await run(talk) == b"all I have"
        assert await reasons(listener) == {"normal": 1}
    assert b"".join(received) == b"and I have more"


async def test_a_stream_cut_short_is_told_from_one_that_ended(tls: TlsOptions) -> None:
    """Whoever can cut the connection could otherwise cut the message (RFC 8446 section 6.1)."""
    seen: list[bytes | type[Exception]] = []

    async def look(connection: StreamConnection) -> None:
        try:
            while True:
                seen.append(await connection.receive())
        except (anyio.EndOfStream, anyio.BrokenResourceError) as error:
            seen.append(type(error))

    def cut() -> None:
        # With 1.3 there would be session tickets to read, and a close without that resets the connection.
        with secure(dial(listener), client_context(ssl.TLSVersion.TLSv1_2)) as client:
            client.sendall(b"pay 1")
            read_only = client.detach()
        socket.socket(fileno=read_only).close()

    async with encrypted(look, tls) as listener:
        await run(cut)
        await reasons(listener)
    assert seen == [b"pay 1", anyio.BrokenResourceError]


async def test_a_callback_handler_is_told_of_a_stream_cut_short(tls: TlsOptions) -> None:
    seen: list[object] = []

    class Look(CallbackHandler):
        def data_received(self, connection: StreamConnection, data: bytes) -> None:
            seen.append(data)

        def eof_received(self, connection: StreamConnection) -> None:
            seen.append("end")

        def connection_lost(self, connection: StreamConnection, error: Exception | None) -> None:
            seen.append(type(error))

    def cut() -> None:
        # With 1.3 there would be session tickets to read, and a close without that resets the connection.
        with secure(dial(listener), client_context(ssl.TLSVersion.TLSv1_2)) as client:
            client.sendall(b"pay 1")
            read_only = client.detach()
        socket.socket(fileno=read_only).close()

    async with encrypted(Look(), tls) as listener:
        await run(cut)
        await reasons(listener)
    assert seen == [b"pay 1", ConnectionAbortedError]


async def test_each_connection_starts_and_stops_once(handler: Handler, tls: TlsOptions) -> None:
    events: list[tuple[str, str | None]] = []

    def note(event: ConnectionEvent) -> None:
        events.append((event.kind, event.reason))

    async with encrypted(handler, tls, on_event=note) as listener:
        await run(lambda: ask(listener, b"hello", client_context()))
        await run(lambda: dial(listener, b"junk junk junk").close())
        await reasons(listener, 2)
        assert listener.stats().current_connections == 0
    assert events == [("connection_started", None), ("connection_stopped", "normal")]


async def test_a_listener_that_closes_ends_connections_with_close_notify(tls: TlsOptions) -> None:
    async with encrypted(handlers.echo, tls) as listener:
        with await run(lambda: secure(dial(listener), client_context())) as client:
            client.sendall(b"hello")
            assert await run(lambda: read(client, 5)) == b"hello"
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(listener.close)
                assert await run(lambda: client.recv(1)) == b""  # ragged ends raise here


async def test_a_listener_that_cancels_a_handler_sends_no_close_notify_for_it(tls: TlsOptions) -> None:
    async with encrypted(echo, tls, shutdown_timeout=0.2) as listener:
        with await run(lambda: secure(dial(listener), client_context())) as client:
            client.sendall(b"hello")
            assert await run(lambda: read(client, 5)) == b"hello"
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(listener.close)
                with socket.socket(fileno=client.detach()) as raw:  # the ssl module tells resets and ends alike
                    raw.settimeout(PATIENCE_S)
                    with pytest.raises(ConnectionResetError):
                        await run(lambda: raw.recv(1))


async def test_a_unix_socket_speaks_tls_too(handler: Handler, tls: TlsOptions, tmp_path: Path) -> None:
    path = str(tmp_path / "tls.sock")

    def talk() -> bytes:
        with socket.socket(socket.AF_UNIX) as raw:
            raw.settimeout(PATIENCE_S)
            raw.connect(path)
            with secure(raw, client_context()) as client:
                client.sendall(b"hello")
                return read(client, 5)

    with anyio.fail_after(PATIENCE_S):
        async with open_listener("tls", f"tls://unix:{path}", handler, tls=tls):
            assert await run(talk) == b"hello"


async def test_tls_takes_both_the_address_and_the_option(tls: TlsOptions) -> None:
    with pytest.raises(InvalidOption, match="needs the option tls"):
        Listener("x", "tls://127.0.0.1:0", echo)
    with pytest.raises(InvalidOption, match=r"Write tls://127\.0\.0\.1:0"):
        Listener("x", "127.0.0.1:0", echo, ListenerOptions(tls=tls))
    with pytest.raises(InvalidOption, match="speaks no TLS"):
        await Listener("x", "127.0.0.1:0", echo).set_tls()
