"""Broadcasts to many connections: everybody gets them, and nobody slow holds them up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest
from tests.core.conftest import Serve, connect_stream, reasons, until

from esockd_core import (
    CallbackHandler,
    ConnectionGroup,
    InvalidOption,
    ListenerOptions,
    StreamConnection,
    open_listener,
)
from esockd_core.testing import MemoryConnection, memory_connection

if TYPE_CHECKING:
    from anyio.abc import SocketStream

pytestmark = pytest.mark.anyio


def deaf() -> MemoryConnection:
    """A connection that has no room for two messages of ten bytes."""
    return memory_connection(window_bytes=0, options=ListenerOptions(write_buffer_bytes=1, write_limit_bytes=10))


async def test_every_member_but_the_sender_gets_a_broadcast() -> None:
    group = ConnectionGroup()

    async def chat(connection: StreamConnection) -> None:
        with group.joined(connection):
            async for line in connection.lines():
                group.broadcast(line + b"\n", exclude=connection)

    with anyio.fail_after(20):
        async with open_listener("chat", "127.0.0.1:0", chat) as listener:
            clients: list[SocketStream] = [await connect_stream(listener) for _ in range(3)]
            await until(lambda: len(group) == 3)
            await clients[0].send(b"hello\n")
            for client in clients[1:]:
                assert await client.receive() == b"hello\n"
            await clients[1].send(b"hi\n")
            assert await clients[0].receive() == b"hi\n"
            for client in clients:
                await client.aclose()
            await until(lambda: len(group) == 0)


async def test_callbacks_join_and_leave(serve: Serve) -> None:
    class Room(CallbackHandler):
        group = ConnectionGroup()

        def connection_made(self, connection: StreamConnection) -> None:
            self.group.add(connection)
            assert self.group.broadcast(b"welcome") == 1

        def connection_lost(self, connection: StreamConnection, error: Exception | None) -> None:
            self.group.discard(connection)

    room = Room()
    async with serve(room) as (listener, client):
        assert await client.receive() == b"welcome"
        (connection,) = room.group
        assert connection in room.group
        await client.aclose()
        await reasons(listener)
        assert len(room.group) == 0


async def test_a_slow_member_misses_the_message_and_stays() -> None:
    group = ConnectionGroup()
    slow, quick = deaf(), memory_connection()
    group.add(slow)
    group.add(quick)
    assert group.broadcast(b"0123456789") == 2
    assert group.broadcast(b"missed....") == 1
    assert (group.dropped, len(group)) == (1, 2)
    assert await slow.peer.receive() == b"0123456789"
    assert group.broadcast(b"again") == 2
    assert await slow.peer.receive() == b"again"
    assert await quick.peer.receive() == b"0123456789missed....again"


async def test_a_slow_member_is_closed_where_that_is_the_policy() -> None:
    group = ConnectionGroup(when_slow="close")
    slow = deaf()
    group.add(slow)
    group.broadcast(b"0123456789")
    assert group.broadcast(b"too much") == 0
    assert (group.dropped, len(group), slow.state) == (1, 0, "closed")
    assert slow.reason == "slow_member"


async def test_members_that_are_closed_leave_with_the_next_broadcast() -> None:
    group = ConnectionGroup()
    closed, reset, open_one = memory_connection(), memory_connection(), memory_connection()
    for connection in (closed, reset, open_one):
        group.add(connection)
    closed.close_nowait()
    reset.peer.reset()
    assert group.broadcast(b"hello") == 1
    assert list(group) == [open_one]


async def test_a_policy_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InvalidOption, match='when_slow is \'wait\': it takes "drop" or "close"'):
        ConnectionGroup(when_slow="wait")  # type: ignore[arg-type]


class Member:
    """Counts what a group does with it."""

    compared = 0
    handed = 0

    def __eq__(self, other: object) -> bool:
        Member.compared += 1
        return self is other

    __hash__ = object.__hash__

    def send_nowait(self, data: bytes) -> None:
        Member.handed += 1
        raise anyio.BrokenResourceError


def test_a_thousand_members_that_leave_at_once_cost_one_look_each() -> None:
    group: Any = ConnectionGroup()
    members = [Member() for _ in range(1000)]
    for member in members:
        group.add(member)
    for member in reversed(members[500:]):
        group.discard(member)
    assert group.broadcast(b"news") == 0
    assert len(group) == 0
    assert group.broadcast(b"news") == 0
    assert Member.handed == 500
    assert Member.compared < 1000  # a list would compare a quarter of a million times
