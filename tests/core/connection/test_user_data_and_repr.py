"""What a program keeps with a connection, and what connections and listeners say of themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.core.conftest import Serve, echo

from esockd_core import CallbackHandler, Listener, StreamConnection
from esockd_core.testing import memory_connection

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio


async def test_user_data_is_none_and_then_what_the_program_put_there(serve: Serve) -> None:
    class Counting(CallbackHandler):
        def connection_made(self, connection: StreamConnection) -> None:
            assert connection.user_data is None
            connection.user_data = {"messages": 0}

        def data_received(self, connection: StreamConnection, data: bytes) -> None:
            connection.user_data["messages"] += 1
            connection.send_nowait(b"%d" % connection.user_data["messages"])

    async with serve(Counting()) as (listener, client):
        for expected in (b"1", b"2"):
            await client.send(b"!")
            assert await client.receive() == expected
        assert listener.connections[0].user_data == {"messages": 2}


async def test_a_connection_says_which_it_is_and_how_it_is(serve: Serve) -> None:
    async with serve(echo) as (listener, client):
        await client.send(b"hello")
        await client.receive()
        (connection,) = listener.connections
        peer = "{}:{}".format(*connection.peername)
        shown = f"<StreamConnection {connection.id} of 'test' from {peer}: open, 5 bytes in, 5 out>"
        assert repr(connection) == shown
        connection.abort()
        assert "closed" in repr(connection) or "closing" in repr(connection)


def test_a_connection_in_memory_has_a_repr_too() -> None:
    assert " of 'memory' from [2001:db8::1]:5: open, 0 bytes in" in repr(memory_connection(peername=("2001:db8::1", 5)))
    assert " from a Unix client: " in repr(memory_connection(peername=""))


async def test_a_listener_says_where_it_is_and_how_it_is(serve: Serve, tmp_path: Path) -> None:
    async with serve(echo) as (listener, client):
        await client.send(b"!")
        await client.receive()
        assert repr(listener) == f"<Listener 'test' on 127.0.0.1:{listener.port}: running, 1 connection>"
    assert repr(listener) == "<Listener 'test' on 127.0.0.1:0: closed>"
    assert repr(Listener("other", f"unix:{tmp_path}/sock", echo)) == f"<Listener 'other' on unix:{tmp_path}/sock: new>"
