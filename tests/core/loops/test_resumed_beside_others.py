"""Handlers that are resumed where their bytes come: beside each other, at the end, and behind TLS and PROXY."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from tests.core.conftest import ASYNCIO_ONLY, HEADER, Serve, connect_stream, reasons, receive_all, settle, until
from tests.core.loops.resumed import ask, is_resumed
from tests.core.tls_clients import client_context, dial, run
from tests.patience import PATIENCE_S

from esockd_core import StreamConnection, TlsOptions, open_listener
from esockd_core._loops.asyncio.stream import AsyncioStream

if TYPE_CHECKING:
    import socket

pytestmark = [pytest.mark.anyio, ASYNCIO_ONLY]


@pytest.mark.parametrize("how", ["its scope", "its task", "its connection"])
async def test_a_resumed_handler_may_end_another_whose_bytes_come_next(serve: Serve, how: str) -> None:
    streams: list[AsyncioStream] = []
    scopes: list[anyio.CancelScope] = []
    tasks: list[asyncio.Task[Any]] = []

    async def end_the_other(connection: StreamConnection) -> None:
        await connection.receive()
        assert is_resumed()
        if how == "its scope":
            scopes[0].cancel()
        elif how == "its task":
            tasks[0].cancel()
        else:
            streams[1].close_nowait()

    async def end(connection: StreamConnection) -> None:
        tasks.append(asyncio.current_task())  # type: ignore[arg-type]
        error: type[BaseException] = asyncio.CancelledError
        if how == "its connection":
            error = anyio.ClosedResourceError
        with anyio.CancelScope() as scope:
            scopes.append(scope)
            with pytest.raises(error):
                await connection.receive()
            assert not is_resumed()
        if how != "its connection":
            await connection.send(await connection.receive())

    async def handle(connection: StreamConnection) -> None:
        assert isinstance(connection, AsyncioStream)
        streams.append(connection)
        await (end_the_other if len(streams) == 1 else end)(connection)

    def both_send() -> None:
        streams[0].data_received(b"x")
        streams[1].data_received(b"kept")

    async with serve(handle) as (listener, _), await connect_stream(listener) as other:
        await until(lambda: len(streams) == 2)
        await settle()
        asyncio.get_running_loop().call_soon(both_send)
        assert await receive_all(other) == (b"" if how == "its connection" else b"kept")


async def test_the_end_of_the_stream_resumes_a_handler_too(serve: Serve) -> None:
    ended: list[bool] = []

    async def handle(connection: StreamConnection) -> None:
        await connection.send(b"ready")
        async for data in connection:
            await connection.send(data)
        ended.append(is_resumed())
        await connection.send(b"bye")

    async with serve(handle) as (listener, client):
        await client.receive()
        assert await ask(client) == b"?\n"
        await client.send_eof()
        assert await receive_all(client) == b"bye"
        assert await reasons(listener) == {"normal": 1}
    assert ended == [True]


@pytest.mark.parametrize("message", ["receive_exactly", "receive_until"])
async def test_the_end_within_a_message_resumes_a_handler_with_its_error(serve: Serve, message: str) -> None:
    async def handle(connection: StreamConnection) -> None:
        await connection.send(b"ready")
        if message == "receive_exactly":
            await connection.receive_exactly(1000)
        else:
            await connection.receive_until(b"\n", 1000)

    async with serve(handle) as (listener, client):
        await client.receive()
        await client.send(b"a part")
        await until(lambda: listener.connections[0].bytes_in)
        await client.send_eof()
        assert await reasons(listener) == {"cut_short": 1}


async def test_each_part_of_a_message_resumes_a_handler_and_the_last_one_completes_it(serve: Serve) -> None:
    streams: list[AsyncioStream] = []

    async def handle(connection: StreamConnection) -> None:
        assert isinstance(connection, AsyncioStream)
        streams.append(connection)
        await connection.send(await connection.receive_exactly(6))
        assert is_resumed()
        await connection.send(await connection.receive_until(b"\n", 100))
        assert is_resumed()

    def feed() -> None:
        for part in (b"ab", b"cd", b"ef", b"gh", b"ij\n"):
            streams[0].data_received(part)

    async with serve(handle) as (listener, client):
        await until(lambda: streams)
        await settle()
        asyncio.get_running_loop().call_soon(feed)
        assert await receive_all(client) == b"abcdefghij"
        assert await reasons(listener) == {"normal": 1}


@pytest.mark.parametrize("ends", ["closes", "aborts", "returns", "raises"])
async def test_a_resumed_handler_may_end_its_connection_whatever_comes_next_in_the_same_turn(
    serve: Serve, ends: str
) -> None:
    streams: list[AsyncioStream] = []

    async def handle(connection: StreamConnection) -> None:
        assert isinstance(connection, AsyncioStream)
        streams.append(connection)
        await connection.receive()
        assert is_resumed()
        if ends == "closes":
            connection.close_nowait()
        elif ends == "aborts":
            connection.abort()
        elif ends == "raises":
            raise LookupError

    def feed() -> None:
        for part in (b"one", b"two", b"three"):
            streams[0].data_received(part)
        streams[0].eof_received()

    async with serve(handle) as (listener, _):
        await until(lambda: streams)
        await settle()
        asyncio.get_running_loop().call_soon(feed)
        expected = {"closes": "normal", "aborts": "aborted", "returns": "normal", "raises": "handler_error"}
        assert await reasons(listener) == {expected[ends]: 1}


async def test_a_drain_ends_what_a_resumed_handler_waits_for_next(serve: Serve) -> None:
    async def handle(connection: StreamConnection) -> None:
        await connection.send(b"ready")
        with connection.until_draining():
            async for data in connection:
                assert is_resumed()
                await connection.send(data)
        await connection.send(b"drained")

    async with serve(handle) as (listener, client):
        await client.receive()
        assert await ask(client) == b"?\n"
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.close)
            assert await receive_all(client) == b"drained"


async def test_deadlines_around_a_receive_are_met_and_bytes_in_time_are_taken(serve: Serve) -> None:
    async def handle(connection: StreamConnection) -> None:
        await connection.send(b"ready")
        while True:
            with anyio.fail_after(PATIENCE_S):
                data = await connection.receive()
            assert is_resumed()
            with pytest.raises(TimeoutError):
                with anyio.fail_after(0.001):
                    await connection.receive()
            with anyio.move_on_after(0.001):
                await anext(connection)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001):
                    await connection.receive()
            await connection.send(data)

    async with serve(handle) as (_, client):
        await client.receive()
        for question in (b"one", b"two", b"three"):
            assert await ask(client, question) == question


async def test_a_scope_that_was_cancelled_ends_a_flood_that_resumes_its_handler(serve: Serve) -> None:
    async def handle(connection: StreamConnection) -> None:
        with anyio.CancelScope() as scope:
            async for _ in connection:
                scope.cancel()
        assert scope.cancelled_caught
        await connection.send(b"cancelled")

    async def flood() -> None:
        while True:
            await client.send(bytes(1000))

    async with serve(handle) as (_, client), anyio.create_task_group() as tasks:
        tasks.start_soon(flood)
        assert await client.receive() == b"cancelled"
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("entrance", ["TLS", "PROXY", "PROXY and TLS"])
async def test_a_handler_behind_an_entrance_is_resumed_where_its_bytes_come(entrance: str, tls: TlsOptions) -> None:
    async def handle(connection: StreamConnection) -> None:
        await connection.send(b"ready")
        async for data in connection:
            assert is_resumed()
            await connection.send(data)

    def talk() -> None:
        client: socket.socket = dial(listener, HEADER if "PROXY" in entrance else b"")
        if "TLS" in entrance:
            client = client_context().wrap_socket(client, server_hostname="localhost")
        with client:
            assert client.recv(100) == b"ready"
            for question in (b"one", b"two", b"three"):
                client.sendall(question)
                assert client.recv(100) == question

    options: dict[str, Any] = {"tls": tls} if "TLS" in entrance else {}
    if "PROXY" in entrance:
        options["proxy_protocol"] = True
    address = "tls://127.0.0.1:0" if "TLS" in entrance else "127.0.0.1:0"
    with anyio.fail_after(PATIENCE_S):
        async with open_listener("test", address, handle, **options) as listener:
            await run(talk)
            assert await reasons(listener) in ({"normal": 1}, {"reset": 1})


async def test_a_resumed_handler_may_start_tls(tls: TlsOptions) -> None:
    async def handle(connection: StreamConnection) -> None:
        await connection.send(b"ready")
        assert await connection.receive_until(b"\n", 100) == b"STARTTLS"
        assert is_resumed()
        await connection.send(b"go")
        await connection.start_tls(tls)
        await connection.send(b"hi")
        async for data in connection:
            assert is_resumed()
            await connection.send(data)

    def talk() -> None:
        with dial(listener) as raw:
            assert raw.recv(100) == b"ready"
            raw.sendall(b"STARTTLS\n")
            assert raw.recv(100) == b"go"
            with client_context().wrap_socket(raw, server_hostname="localhost") as client:
                assert client.recv(100) == b"hi"
                for question in (b"one", b"two"):
                    client.sendall(question)
                    assert client.recv(100) == question

    with anyio.fail_after(PATIENCE_S):
        async with open_listener("test", "127.0.0.1:0", handle) as listener:
            await run(talk)


async def test_a_handler_that_never_waits_leaves_others_their_turns(serve: Serve) -> None:
    """The two answer each other while one of them pours."""

    async def handle(connection: StreamConnection) -> None:
        async for data in connection:
            if data == b"pour":
                while True:
                    await connection.send(b"")
            await connection.send(data)

    async with serve(handle) as (listener, pouring), await connect_stream(listener) as other:
        await pouring.send(b"pour")
        await until(lambda: listener.connections[0].bytes_in == 4)
        for question in (b"one", b"two", b"three"):
            assert await ask(other, question) == question
        await listener.kill_connections("127.0.0.0/8")
        await reasons(listener, 2)


async def test_where_a_resumed_handler_is_can_be_told_from_within_it(serve: Serve) -> None:
    stacks: list[str] = []

    async def handle(connection: StreamConnection) -> None:
        assert isinstance(connection, AsyncioStream)
        await connection.send(b"ready")
        await connection.receive()
        stacks.append(connection.handler_stack())
        asyncio.get_running_loop().call_soon(lambda: stacks.append(connection.handler_stack()))
        await anyio.sleep_forever()

    async with serve(handle) as (_, client):
        await client.receive()
        await client.send(b"x")
        await until(partial(len, stacks))
        await until(lambda: len(stacks) == 2)
    assert "anyio.sleep_forever()" in stacks[1]
