"""Handlers that could not serve are refused when they are given, with what to write instead."""

from __future__ import annotations

from functools import partial, wraps
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from tests.core.conftest import Serve, receive_all, until

from esockd_core import CallbackHandler, InvalidOption, Listener, StreamConnection, handlers
from esockd_core.testing import memory_connection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

pytestmark = pytest.mark.anyio


def plain(connection: StreamConnection) -> None:
    connection.send_nowait(b"!")


async def generate(connection: StreamConnection) -> AsyncIterator[bytes]:
    yield await connection.receive()


async def serve_it(connection: StreamConnection) -> None:
    await connection.send(b"served")


class AsyncCallback(CallbackHandler):
    async def data_received(self, connection: StreamConnection, data: bytes) -> None:  # type: ignore[override]
        await connection.send(data)


class PlainCall:
    def __call__(self, connection: StreamConnection) -> None:
        connection.send_nowait(b"!")


class PlainMethod:
    def serve(self, connection: StreamConnection) -> None:
        connection.send_nowait(b"!")


def counted(function: Callable[[StreamConnection], Awaitable[None]]) -> Callable[[StreamConnection], Awaitable[None]]:
    @wraps(function)
    def wrapper(connection: StreamConnection) -> Awaitable[None]:
        return function(connection)

    return wrapper


@pytest.mark.parametrize(
    ("handler", "reason", "hint"),
    [
        (plain, "it is a plain function, and nothing could be awaited in it", 'Write "async def plain".'),
        (partial(plain), "it is a plain function, and nothing could be awaited in it", 'Write "async def plain".'),
        (PlainMethod().serve, "it is a plain function, and nothing could be awaited in it", 'Write "async def serve".'),
        (PlainCall(), "it is a plain function, and nothing could be awaited in it", 'Write "async def __call__".'),
        (generate, "it is an async generator, which nobody would iterate over", 'Send, and do not "yield".'),
        (
            AsyncCallback(),
            "its data_received is a coroutine function, which nobody would await",
            'Write "def data_received", or give a coroutine function in place of the object.',
        ),
        (
            AsyncCallback,
            "it takes a coroutine function, or an instance of CallbackHandler",
            "Give an instance: AsyncCallback().",
        ),
    ],
)
async def test_a_handler_that_could_not_serve_is_refused_with_what_to_write_instead(
    handler: Any, reason: str, hint: str
) -> None:
    with pytest.raises(InvalidOption) as caught:
        Listener("test", "127.0.0.1:0", handler)
    assert (caught.value.option, caught.value.value, caught.value.reason) == ("handler", handler, reason)
    assert caught.value.hint == hint
    with pytest.raises(InvalidOption):
        await memory_connection().serve(handler)


async def test_a_handler_that_was_called_already_is_refused() -> None:
    with pytest.raises(InvalidOption, match="Give the function itself, without calling it"):
        Listener("test", "127.0.0.1:0", serve_it(memory_connection()))  # type: ignore[arg-type]


@pytest.mark.parametrize("handler", [counted(serve_it), lambda connection: serve_it(connection)])  # noqa: PLW0108
async def test_decorated_functions_and_lambdas_are_taken_at_their_word(serve: Serve, handler: Any) -> None:
    async with serve(handler) as (_, client):
        assert await receive_all(client) == b"served"


async def test_a_running_listener_refuses_them_too(serve: Serve) -> None:
    async with serve(serve_it) as (listener, _):
        with pytest.raises(InvalidOption, match="it is a plain function"):
            await listener.set_handler(plain)  # type: ignore[arg-type]
        with pytest.raises(InvalidOption, match="it is a plain function"):
            await listener.set_handler(f"{__name__}:plain")


async def test_echo_and_discard_serve_a_connection_of_another_handler(serve: Serve) -> None:
    async def route(connection: StreamConnection) -> None:
        if await connection.receive_exactly(1) == b"e":
            await handlers.echo(connection)
        else:
            await handlers.discard(connection)

    async with serve(route, shutdown_timeout=None) as (listener, client):
        await client.send(b"ehello")
        assert await client.receive() == b"hello"
        assert listener.port is not None
        async with await anyio.connect_tcp("127.0.0.1", listener.port) as other:
            await other.send(b"dnever seen again")
            await until(lambda: len(listener.connections) == 2)
            await listener.close()  # which ends them, though they wait for their clients
            assert await receive_all(other) == b""
        assert await receive_all(client) == b""
    assert listener.stats().shutdown_counts == {"normal": 2}
