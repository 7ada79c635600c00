"""What only trio needs: the flusher, the poller of callback connections, and waits that must not meet."""

from __future__ import annotations

import errno
import gc
import select
from contextlib import suppress
from pathlib import Path

import anyio
import pytest
import trio
from anyio.lowlevel import checkpoint
from tests.core.conftest import MORE_THAN_KERNELS_HOLD, Echo, connect, receive_all, until

from esockd_core import CallbackHandler, StreamConnection, open_listener
from esockd_core._loops.trio import poller

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["trio"])]


def epolls() -> int:
    """How many epoll descriptors this process has."""
    found = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            found += descriptor.readlink().name == "anon_inode:[eventpoll]"
    return found


@pytest.mark.filterwarnings("error::ResourceWarning")
@pytest.mark.linux
async def test_the_poller_closes_its_epoll_with_the_listener() -> None:
    before = epolls()
    with anyio.fail_after(30):
        for _ in range(3):
            async with open_listener("test", "127.0.0.1:0", Echo()) as listener:
                assert listener.port is not None
                async with await anyio.connect_tcp("127.0.0.1", listener.port) as client:
                    await client.send(b"x")
                    assert await client.receive() == b"x"
                    assert epolls() == before + 1
    gc.collect()
    assert epolls() == before


@pytest.mark.linux
async def test_a_poller_that_cannot_be_had_ends_the_connection_not_the_listener(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []

    class Telling(CallbackHandler):
        def connection_made(self, connection: StreamConnection) -> None:
            told.append("made")

        def connection_lost(self, connection: StreamConnection, error: Exception | None) -> None:
            assert isinstance(error, OSError)
            told.append("lost")

    def no_epoll() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with anyio.fail_after(30):
        async with open_listener("test", "127.0.0.1:0", Telling()) as listener:
            assert listener.port is not None
            with monkeypatch.context() as patch:
                patch.setattr(select, "epoll", no_epoll)
                async with await anyio.connect_tcp("127.0.0.1", listener.port) as client:
                    with suppress(anyio.BrokenResourceError):
                        assert await receive_all(client) == b""
            assert told == ["made", "lost"]
            assert listener.state == "running"
            await listener.set_handler(Echo())
            async with await anyio.connect_tcp("127.0.0.1", listener.port) as client:
                await client.send(b"x")
                assert await client.receive() == b"x"


class CloseAfterOne(CallbackHandler):
    """Closes in the very callback in which it reads: the number of the descriptor may be another's at once."""

    def data_received(self, connection: StreamConnection, data: bytes) -> None:
        connection.send_nowait(data)
        connection.abort()


@pytest.mark.parametrize("handler", [Echo(), CloseAfterOne()], ids=["echo", "close after one"])
async def test_where_the_system_has_no_poller_each_connection_has_a_task(
    handler: CallbackHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poller, "open_poller", lambda: None)
    with anyio.fail_after(20):
        async with open_listener("test", "127.0.0.1:0", handler) as listener:
            for _ in range(20):
                with connect(listener) as client:
                    client.send(b"x")
                    await anyio.wait_readable(client)
                    with suppress(ConnectionResetError):
                        assert client.recv(1) in (b"x", b"")
            await until(lambda: not listener.connections)
            assert sum(listener.stats().shutdown_counts.values()) == 20


async def test_a_close_beside_waiting_receiver_and_sender_lingers_and_flushes() -> None:
    """They share one socket with the flusher, and trio lets one task only wait each way."""
    outcomes: list[str] = []
    closed = anyio.Event()

    async def handle(connection: StreamConnection) -> None:
        async def receive() -> None:
            try:
                await connection.receive()
            except anyio.ClosedResourceError:
                outcomes.append("receiver closed")
                closed.set()

        async def send() -> None:
            try:
                await connection.send(bytes(MORE_THAN_KERNELS_HOLD))
            except anyio.ClosedResourceError:  # though all of it is sent
                outcomes.append("sender closed")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            nursery.start_soon(send)
            await anyio.wait_all_tasks_blocked()
            await connection.aclose()

    with anyio.fail_after(30):
        async with open_listener("test", "127.0.0.1:0", handle) as listener:
            assert listener.port is not None
            async with await anyio.connect_tcp("127.0.0.1", listener.port) as client:
                await closed.wait()
                for _ in range(3):  # unread input, which would make a hasty close a reset
                    await client.send(b"unasked")
                assert len(await receive_all(client)) == MORE_THAN_KERNELS_HOLD
    assert sorted(outcomes) == ["receiver closed", "sender closed"]
    assert listener.stats().shutdown_counts == {"normal": 1}


@pytest.mark.parametrize("closing", ["abort", "close_nowait"])
async def test_a_receiver_that_was_just_woken_finds_a_closed_connection(closing: str) -> None:
    """Data and close in one pass of the loop: the receiver is woken by the data and runs after the close."""
    errors: list[Exception] = []

    async def handle(connection: StreamConnection) -> None:
        async def receive() -> None:
            try:
                while True:
                    await connection.receive()
            except (anyio.ClosedResourceError, anyio.BrokenResourceError) as error:
                errors.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await anyio.wait_all_tasks_blocked()
            for _ in range(20):
                await checkpoint()
            getattr(connection, closing)()

    with anyio.fail_after(30):
        async with open_listener("test", "127.0.0.1:0", handle, linger_timeout=0.05) as listener:
            assert listener.port is not None
            for _ in range(20):
                async with await anyio.connect_tcp("127.0.0.1", listener.port) as client:
                    with suppress(anyio.BrokenResourceError):
                        for _ in range(40):
                            await client.send(b"x")
                    with suppress(anyio.BrokenResourceError):
                        await receive_all(client)
    assert len(errors) == 20
    assert {type(error) for error in errors} == {anyio.ClosedResourceError}


async def test_a_farewell_to_a_refused_client_that_left_does_not_hurt_the_acceptor() -> None:
    with anyio.fail_after(30):
        async with open_listener(
            "test", "127.0.0.1:0", Echo(), access_rules=["deny all"], refuse_with=b"go away"
        ) as listener:
            assert listener.port is not None
            for _ in range(10):
                client = await anyio.connect_tcp("127.0.0.1", listener.port)
                await anyio.aclose_forcefully(client)
            async with await anyio.connect_tcp("127.0.0.1", listener.port) as client:
                assert await receive_all(client) == b"go away"
            assert sum(acceptor.restarts for acceptor in listener.acceptors) == 0
