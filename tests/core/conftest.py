"""What the tests of esockd-core share: echo handlers in both styles, and clients on loopback."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias

import anyio
import pytest
from anyio.abc import SocketStream

from esockd_core import CallbackHandler, Handler, Listener, StreamConnection, open_listener

Serve: TypeAlias = Callable[..., AbstractAsyncContextManager[tuple[Listener, SocketStream]]]


async def echo(connection: StreamConnection) -> None:
    async for data in connection:
        await connection.send(data)


class Echo(CallbackHandler):
    def data_received(self, connection: StreamConnection, data: bytes) -> None:
        connection.send_nowait(data)


@pytest.fixture(params=[echo, Echo()], ids=["coroutine", "callback"])
def handler(request: pytest.FixtureRequest) -> Handler:
    """Run the test with an echo handler in both styles."""
    chosen: Handler = request.param
    return chosen


def connect(listener: Listener, source: str = "127.0.0.1") -> socket.socket:
    """A client in the kernel's queue, from an address of its own: the loop need not run for that."""
    assert listener.port is not None
    host = "::1" if ":" in source else "127.0.0.1"
    client = socket.create_connection((host, listener.port), 5, (source, 0))
    client.setblocking(False)
    return client


async def answer(client: socket.socket, question: bytes = b"hello") -> bytes:
    """What the peer sends until it sent as much as the question, or finished."""
    client.sendall(question)
    answered = b""
    with anyio.fail_after(5):
        while len(answered) < len(question):
            await anyio.wait_readable(client)
            chunk = client.recv(65_536)
            if not chunk:
                break
            answered += chunk
    return answered


async def rest(client: socket.socket) -> bytes:
    """What the peer still sends until it finishes."""
    received = b""
    with anyio.fail_after(10):
        while True:
            await anyio.wait_readable(client)
            chunk = client.recv(65_536)
            if not chunk:
                return received
            received += chunk


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what no event announces."""
    with anyio.fail_after(10):
        while not condition():  # noqa: ASYNC110
            await anyio.sleep(0.01)


@pytest.fixture
def serve() -> Serve:
    """Give an async context manager: a listener for a handler, and a client of it, both closed within 20 seconds."""

    @asynccontextmanager
    async def serve(handler: Handler, **options: Any) -> AsyncIterator[tuple[Listener, SocketStream]]:
        with anyio.fail_after(20):
            async with open_listener("test", "127.0.0.1:0", handler, **options) as listener:
                assert listener.port is not None
                async with await anyio.connect_tcp("127.0.0.1", listener.port) as client:
                    yield listener, client

    return serve
