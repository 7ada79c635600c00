"""Hostile clients, each against a real listener."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import anyio
import pytest
from tests.core.conftest import MIB, Serve, answer, connect, echo, until

from esockd_core import CallbackHandler, Handler, StreamConnection, open_listener
from esockd_core.testing import (
    connect_and_reset,
    connect_deaf,
    exchange,
    memory_connection,
    reset,
    send_byte_by_byte,
    silent_clients,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio


async def test_a_client_that_resets_in_the_queue_is_counted_as_gone_early(handler: Handler) -> None:
    async with open_listener("echo", "127.0.0.1:0", handler) as listener:
        await listener.suspend()  # a listener in another process would be as slow
        connect_and_reset(listener.addresses[0])
        await listener.resume()
        with connect(listener) as client:
            assert await answer(client) == b"hello"
        assert (listener.stats().closed_early, listener.stats().accepted) == (1, 1)


async def test_a_deaf_client_soon_stops_a_handler_that_sends() -> None:
    async def pour(connection: StreamConnection) -> None:
        for _ in range(16):
            await connection.send(bytes(MIB))

    async with open_listener("pour", "127.0.0.1:0", pour, send_timeout=0.2) as listener:
        with connect_deaf(listener.addresses[0]):
            await until(lambda: listener.stats().shutdown_counts != {})
        assert listener.stats().shutdown_counts == {"send_timeout": 1}
        assert listener.stats().bytes_out < 16 * MIB


async def test_silent_clients_take_the_room_of_others_until_they_leave(handler: Handler) -> None:
    async with open_listener("echo", "127.0.0.1:0", handler, max_connections=5) as listener:
        with silent_clients(listener.addresses[0], 7) as clients:
            await until(lambda: listener.stats().closed_max_limit == 2)
            assert len(clients) == 7
        await until(lambda: listener.stats().current_connections == 0)


async def test_a_stream_of_anyios_can_be_reset(serve: Serve, handler: Handler) -> None:
    async with serve(handler) as (listener, client):
        await client.send(b"x")
        assert await client.receive() == b"x"
        await reset(client)
        await until(lambda: listener.stats().shutdown_counts == {"reset": 1})


async def test_a_plain_socket_can_be_reset(handler: Handler) -> None:
    async with open_listener("echo", "127.0.0.1:0", handler) as listener:
        client = connect(listener)
        assert await answer(client) == b"hello"
        await reset(client)
        await until(lambda: listener.stats().shutdown_counts == {"reset": 1})


async def test_bytes_are_sent_one_by_one_in_order(serve: Serve, handler: Handler) -> None:
    async with serve(handler) as (_, client):
        await send_byte_by_byte(client, b"abcdef")
        assert await exchange(client, b"ghi") == b"abcdefghi"


async def test_bytes_that_come_one_by_one_are_received_one_by_one_in_memory() -> None:
    received: list[bytes] = []

    class Record(CallbackHandler):
        def data_received(self, connection: StreamConnection, data: bytes) -> None:
            received.append(data)

    with anyio.fail_after(30):
        async with memory_connection(chunk_bytes=1).served_by(Record()) as peer:
            await send_byte_by_byte(peer, b"abc")
            await exchange(peer, b"de")
    assert received == [b"a", b"b", b"c", b"d", b"e"]


async def test_ipv6_and_unix_addresses_are_connected_to_as_well(tmp_path: Path) -> None:
    async with open_listener("six", "[::1]:0", echo) as listener:
        with silent_clients(listener.addresses[0], 1) as (client,):
            assert client.family == socket.AF_INET6
            assert await answer(client) == b"hello"
    for unix in (tmp_path / "sock", f"unix:@{tmp_path}"):
        async with open_listener("unix", unix, echo) as listener:
            for address in (unix, listener.addresses[0]):
                with silent_clients(address, 1) as (client,):
                    assert await answer(client) == b"hello"


def test_a_client_that_cannot_connect_leaves_no_socket_behind(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):  # an unclosed socket would be a ResourceWarning, which is an error here
        connect_deaf(tmp_path / "nobody")
