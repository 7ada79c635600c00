"""What clients can make a listener hold: bounded by the marks in the options, whatever they and the handlers do."""

from __future__ import annotations

import contextlib
import socket
import tracemalloc

import anyio
import pytest

from esockd_core import CallbackHandler, Connection, Handler, ListenerOptions, StreamConnection, open_listener

pytestmark = pytest.mark.anyio

KIB = 1024
SILENT_CLIENTS = 100
PIECE_BYTES = 64 * KIB


async def pour(connection: Connection) -> None:
    while True:
        await connection.send(b"x" * PIECE_BYTES)


class Pour(CallbackHandler):
    def connection_made(self, connection: StreamConnection) -> None:
        self.resume_writing(connection)

    def resume_writing(self, connection: StreamConnection) -> None:
        with contextlib.suppress(anyio.WouldBlock):
            while True:
                connection.send_nowait(b"x" * PIECE_BYTES)


@pytest.mark.parametrize(
    ("handler", "mark_bytes"),
    [(pour, 64 * KIB), (Pour(), 256 * KIB)],
    ids=["coroutine: write_buffer_bytes", "callback: write_limit_bytes"],
)
async def test_a_hundred_clients_that_never_read_are_bounded_while_the_handler_sends_for_ever(
    handler: Handler, mark_bytes: int
) -> None:
    options = ListenerOptions(write_buffer_bytes=64 * KIB, write_limit_bytes=256 * KIB, shutdown_timeout=0)
    with anyio.fail_after(30), contextlib.ExitStack() as clients:
        async with open_listener("test", "127.0.0.1:0", handler, options) as listener:
            assert listener.port is not None
            tracemalloc.start()
            try:
                for _ in range(SILENT_CLIENTS):
                    client = clients.enter_context(socket.socket())
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * KIB)
                    client.connect(("127.0.0.1", listener.port))
                before = -1
                while before != listener.stats().bytes_out or len(listener.connections) < SILENT_CLIENTS:
                    before = listener.stats().bytes_out
                    await anyio.sleep(0.05)
                _, most = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            for connection in listener.connections:
                connection.abort()
    # The mark, the piece that passed it, the one the waiting handler holds, and the connection itself.
    assert most < SILENT_CLIENTS * (mark_bytes + 2 * PIECE_BYTES + 32 * KIB)
