"""The client's end of a connection in memory: a stream of its own, with ends and resets."""

from __future__ import annotations

import anyio
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream
from tests.core.conftest import echo

from esockd_core import ListenerOptions
from esockd_core.testing import memory_connection

pytestmark = pytest.mark.anyio


async def test_the_clients_end_is_a_stream_that_anyios_wrappers_go_around() -> None:
    async with memory_connection().served_by(echo) as peer:
        await peer.send(b"one\ntwo\n")
        lines = BufferedByteReceiveStream(peer)
        assert await lines.receive_until(b"\n", 10) == b"one"
        assert await lines.receive_exactly(4) == b"two\n"


async def test_the_clients_end_keeps_the_rules_of_a_stream() -> None:
    connection = memory_connection()
    peer = connection.peer
    with pytest.raises(ValueError, match="max_bytes"):
        await peer.receive(0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(peer.receive)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(anyio.BusyResourceError):
            await peer.receive()
        await connection.send(b"x")
    await peer.send_eof()
    with pytest.raises(anyio.ClosedResourceError):
        await peer.send(b"x")
    await peer.aclose()
    await peer.aclose()
    peer.reset()
    for action in (peer.receive, peer.send_eof):
        with pytest.raises(anyio.ClosedResourceError):
            await action()
    with pytest.raises(anyio.ClosedResourceError):
        await peer.send(b"x")


@pytest.mark.parametrize("unread", [b"", b"unread"])
async def test_a_client_sees_an_abort_as_a_reset(unread: bytes) -> None:
    connection = memory_connection()
    await connection.peer.send(unread)
    await connection.send(b"lost")
    connection.abort()
    with pytest.raises(anyio.BrokenResourceError):
        await connection.peer.receive()
    with pytest.raises(anyio.BrokenResourceError):
        await connection.peer.send(b"too late")


async def test_a_reset_that_comes_after_the_end_changes_nothing() -> None:
    connection = memory_connection()
    connection.abort()
    connection.peer.reset()
    with pytest.raises(anyio.ClosedResourceError):
        await connection.receive()


async def test_an_abort_throws_away_what_the_peer_had_not_taken() -> None:
    connection = memory_connection(window_bytes=3)
    await connection.send(b"abcdef")
    connection.abort()
    with pytest.raises(anyio.BrokenResourceError):
        await connection.peer.receive_all()


async def test_a_client_that_leaves_unread_bytes_behind_resets() -> None:
    connection = memory_connection()
    await connection.send(b"unread")
    await connection.peer.aclose()
    with pytest.raises(anyio.BrokenResourceError):
        await connection.receive()


async def test_sending_after_a_reset_is_told_though_something_is_still_to_be_received() -> None:
    connection = memory_connection()
    await connection.peer.send(b"last words")
    connection.peer.reset()
    with pytest.raises(anyio.BrokenResourceError):
        await connection.send(b"x")


async def test_a_waiting_send_is_told_of_a_reset() -> None:
    connection = memory_connection(window_bytes=0, options=ListenerOptions(write_buffer_bytes=1))
    async with anyio.create_task_group() as tasks:

        async def send() -> None:
            with pytest.raises(anyio.BrokenResourceError):
                await connection.send(b"four")

        tasks.start_soon(send)
        await anyio.wait_all_tasks_blocked()
        connection.peer.reset()
