"""A listener inside programs that never call `anyio.run`: plain asyncio, uvloop and trio."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import anyio
import pytest
import trio
import uvloop

from esockd_core import CallbackHandler, Connection, StreamConnection, open_listener

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from esockd_core import Handler


async def answer_once(connection: Connection) -> None:
    """Reply and return while the client still holds its side open: the listener has to close in order."""
    await connection.send(await connection.receive())


class Answer(CallbackHandler):
    def data_received(self, connection: StreamConnection, data: bytes) -> None:
        connection.send_nowait(data)
        connection.close_nowait()


async def serve_one_client(handler: Handler) -> None:
    with anyio.fail_after(30):
        async with open_listener("echo", "127.0.0.1:0", handler, idle_timeout=5) as listener:
            assert listener.port is not None
            async with await anyio.connect_tcp("127.0.0.1", listener.port) as client:
                await client.send(b"hello")
                assert await client.receive() == b"hello"
                with pytest.raises(anyio.EndOfStream):
                    await client.receive()
        assert listener.stats().shutdown_counts == {"normal": 1}


@pytest.mark.parametrize("handler", [answer_once, Answer()], ids=["coroutine", "callback"])
@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio.run", "uvloop.run"])
def test_a_listener_serves_inside_a_plain_asyncio_program(
    run: Callable[[Coroutine[None, None, None]], None], handler: Handler
) -> None:
    run(serve_one_client(handler))


@pytest.mark.parametrize("handler", [answer_once, Answer()], ids=["coroutine", "callback"])
def test_a_listener_serves_inside_a_plain_trio_program(handler: Handler) -> None:
    trio.run(serve_one_client, handler)
