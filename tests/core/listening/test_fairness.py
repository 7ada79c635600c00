"""Thousands of connections: whatever a listener does to all of them, others have their turns."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio.lowlevel import checkpoint
from tests.core.conftest import connect, until
from tests.core.listening.conftest import has_accepted

from esockd_core import open_listener
from esockd_core._connection.stream import StreamBase
from esockd_core._listening.drain import CHUNK
from esockd_core._listening.sweeper import CHUNK as CLOSING_CHUNK

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from esockd_core import Connection, Handler


pytestmark = pytest.mark.anyio


async def test_thousands_of_connections_drain_without_stalling_the_loop(handler: Handler) -> None:
    """What counts is how many are told in one turn of the loop, which no load of the machine changes."""
    told, told_in_a_turn = 0, 0

    def look(connections: Sequence[Connection]) -> None:
        nonlocal told, told_in_a_turn
        before, told = told, sum(connection.draining for connection in connections)
        told_in_a_turn = max(told_in_a_turn, told - before)

    async def watch(connections: Sequence[Connection]) -> None:
        while True:
            look(connections)
            await checkpoint()

    number = 3_000
    async with open_listener(
        "echo", "127.0.0.1:0", handler, max_connections=number, shutdown_timeout=0, linger_timeout=0
    ) as listener:
        clients: list[socket.socket] = []
        for total in range(500, number + 1, 500):
            clients += [connect(listener) for _ in range(500)]
            await until(partial(has_accepted, listener, total))
        async with anyio.create_task_group() as tasks:
            connections = listener.connections
            tasks.start_soon(watch, connections)
            await listener.close()
            look(connections)
            tasks.cancel_scope.cancel()
        for client in clients:
            client.close()
    assert sum(listener.stats().shutdown_counts.values()) == told == number
    assert told_in_a_turn <= 2 * CHUNK  # in each pass of the loop the one may come before the other, or after it


async def test_looking_at_many_closing_connections_does_not_stall_the_loop(
    handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, most = 0, 0
    undelivered_bytes = StreamBase.undelivered_bytes

    def look(connection: StreamBase) -> int:
        nonlocal looks, most
        looks += 1
        most = max(most, looks)
        return undelivered_bytes(connection)

    async def watch() -> None:
        nonlocal looks
        while True:
            looks = 0
            await checkpoint()

    monkeypatch.setattr(StreamBase, "undelivered_bytes", look)
    async with open_listener("echo", "127.0.0.1:0", handler, shutdown_timeout=0) as listener:
        clients: list[socket.socket] = []
        for total in range(CLOSING_CHUNK, 4 * CLOSING_CHUNK, CLOSING_CHUNK):
            clients += [connect(listener) for _ in range(CLOSING_CHUNK)]
            await until(partial(has_accepted, listener, total))
        for connection in listener.connections:
            connection.close_nowait()
        looks = most = 0
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            await until(lambda: most > 0)
            in_one_turn = most
            tasks.cancel_scope.cancel()
        for client in clients:
            client.close()
    assert in_one_turn <= 2 * CLOSING_CHUNK  # in each pass of the loop the one may come before the other, or after it
