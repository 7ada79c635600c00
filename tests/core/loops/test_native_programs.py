"""A listener inside programs that never call `anyio.run`: plain asyncio, uvloop and trio."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import anyio
import pytest
import trio
import uvloop
from tests.patience import PATIENCE_S

from esockd_core import CallbackHandler, Connection, StreamConnection, open_listener
from esockd_core.handlers import ForwardHandler

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from esockd_core import Handler


def trio_run(coroutine: Coroutine[None, None, None]) -> None:
    async def run() -> None:
        await coroutine

    trio.run(run)


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


async def end_a_silent_half_closed_client() -> None:
    async def keep_open(upstream: anyio.abc.SocketStream) -> None:
        async with upstream:
            await anyio.sleep_forever()

    with anyio.fail_after(PATIENCE_S):
        async with (
            await anyio.create_tcp_listener(local_host="127.0.0.1") as server,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(server.serve, keep_open)
            to = server.extra(anyio.abc.SocketAttribute.local_port)
            forward = ForwardHandler(("127.0.0.1", to), half_closed_timeout=0.1)
            async with open_listener("gateway", "127.0.0.1:0", forward, linger_timeout=0.1) as listener:
                assert listener.port is not None
                async with await anyio.connect_tcp("127.0.0.1", listener.port) as client:
                    await client.send_eof()
                    with pytest.raises(anyio.BrokenResourceError):
                        await client.receive()
            assert listener.stats().shutdown_counts == {"half_closed_timeout": 1}
            tasks.cancel_scope.cancel()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run, trio_run], ids=["asyncio.run", "uvloop.run", "trio.run"])
def test_a_half_closed_timeout_ends_a_client_inside_a_plain_program(
    run: Callable[[Coroutine[None, None, None]], None],
) -> None:
    run(end_a_silent_half_closed_client())


@pytest.mark.parametrize("handler", [answer_once, Answer()], ids=["coroutine", "callback"])
def test_a_listener_serves_inside_a_plain_trio_program(handler: Handler) -> None:
    trio.run(serve_one_client, handler)
