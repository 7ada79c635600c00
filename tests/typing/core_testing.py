# pyright: strict, reportUnnecessaryTypeIgnoreComment=true
"""Typed usage of esockd_core.testing: checked by mypy and pyright, never run."""

from __future__ import annotations

import errno
import socket
from typing import assert_type

from anyio.streams.buffered import BufferedByteReceiveStream

from esockd_core import CallbackHandler, ListenerOptions, StreamConnection, open_listener
from esockd_core.testing import (
    AcceptFaults,
    FakeClock,
    FlakySocket,
    MemoryPeer,
    connect_deaf,
    exchange,
    memory_connection,
    silent_clients,
)
from esockd_ratelimit import TokenBucket


async def handle(connection: StreamConnection) -> None:
    await connection.send(b"hello")


async def a_connection_in_memory_is_served_by_both_styles() -> None:
    connection = memory_connection(peername=("192.0.2.7", 1), chunk_bytes=1, options=ListenerOptions(idle_timeout=1))
    assert_type(await connection.serve(handle), str)
    assert_type(connection.reason, str | None)
    assert_type(connection.failure, BaseException | None)
    async with memory_connection().served_by(CallbackHandler()) as peer:
        assert_type(peer, MemoryPeer)
        assert_type(await peer.receive_all(), bytes)
        assert_type(await exchange(peer, b"x"), bytes)
        BufferedByteReceiveStream(peer)
        await peer.send("text")  # type: ignore[arg-type]
    async with memory_connection().served_by(handle, raise_failure=False) as peer:
        assert_type(peer, MemoryPeer)
    memory_connection(chunk_byte=1)  # type: ignore[call-arg]
    await memory_connection().serve(CallbackHandler)  # type: ignore[arg-type]


async def a_flaky_socket_is_an_address() -> None:
    with FlakySocket({3: errno.EMFILE}) as sock:
        assert_type(sock.faults, AcceptFaults)
        open_listener("flaky", sock, handle, limiter=TokenBucket(1, clock=FakeClock()))


def clients_are_plain_sockets() -> None:
    assert_type(connect_deaf("unix:/run/echo"), socket.socket)
    with silent_clients(("127.0.0.1", 5000), 3) as clients:
        assert_type(clients, list[socket.socket])
