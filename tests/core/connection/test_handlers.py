"""Handlers of every make, and handlers that are exchanged."""

from __future__ import annotations

from functools import partial

import anyio
import pytest
from anyio.lowlevel import checkpoint
from tests.core.conftest import Serve, receive_all

from esockd_core import CallbackHandler, Connection, ConnectionEvent, Handler, StreamConnection

pytestmark = pytest.mark.anyio


async def greet(greeting: bytes, connection: Connection, *, mark: bytes = b".") -> None:
    await connection.send(greeting + mark)


class Greeting:
    def __init__(self, greeting: bytes) -> None:
        self.greeting = greeting

    async def __call__(self, connection: Connection) -> None:
        await connection.send(self.greeting + b"!")

    async def method(self, connection: Connection) -> None:
        await connection.send(self.greeting + b"?")


async def test_a_handler_may_be_a_partial_a_method_or_an_object_with_an_async_call(serve: Serve) -> None:
    for handler, said in (
        (partial(greet, b"hello", mark=b";"), b"hello;"),
        (Greeting(b"hello"), b"hello!"),
        (Greeting(b"hello").method, b"hello?"),
        (partial(Greeting(b"hello")), b"hello!"),
    ):
        async with serve(handler) as (_, client):
            assert await receive_all(client) == said


async def test_a_handler_is_exchanged_live_and_open_connections_keep_theirs(serve: Serve) -> None:
    class Saying(CallbackHandler):
        def __init__(self, words: bytes) -> None:
            self.words = words

        def data_received(self, connection: StreamConnection, data: bytes) -> None:
            connection.send_nowait(self.words)

    async def saying(words: bytes, connection: Connection) -> None:
        async for _ in connection:
            await connection.send(words)

    handlers: list[Handler] = [partial(saying, b"a"), Saying(b"b"), Saying(b"c"), partial(saying, b"d")]
    async with serve(handlers[0]) as (listener, first):
        assert listener.port is not None
        await first.send(b"x")
        assert await first.receive() == b"a"
        clients = [first]
        for handler, words in zip(handlers[1:], (b"b", b"c", b"d"), strict=True):
            await listener.set_handler(handler)
            client = await anyio.connect_tcp("127.0.0.1", listener.port)
            await client.send(b"x")
            assert await client.receive() == words
            clients.append(client)
        for client, words in zip(clients, (b"a", b"b", b"c", b"d"), strict=True):
            await client.send(b"x")
            assert await client.receive() == words
            await client.aclose()


async def test_a_handler_exchanged_while_a_client_is_on_its_way_in_never_serves_it_by_the_wrong_style(
    serve: Serve,
) -> None:
    reasons: list[str | None] = []

    class Hello(CallbackHandler):
        def connection_made(self, connection: StreamConnection) -> None:
            connection.send_nowait(b"hello")
            connection.close_nowait()

    async def hello(connection: Connection) -> None:
        await connection.send(b"hello")

    def note(event: ConnectionEvent) -> None:
        if event.kind == "connection_stopped":
            reasons.append(event.reason)

    async with serve(hello, on_event=note) as (listener, first), anyio.create_task_group() as task_group:
        assert listener.port is not None

        async def exchange() -> None:
            while True:
                await listener.set_handler(Hello())
                await checkpoint()
                await listener.set_handler(hello)
                await checkpoint()

        task_group.start_soon(exchange)
        assert await receive_all(first) == b"hello"
        for _ in range(100):
            async with await anyio.connect_tcp("127.0.0.1", listener.port) as client:
                assert await receive_all(client) == b"hello"
        task_group.cancel_scope.cancel()
    assert set(reasons) == {"normal"}
