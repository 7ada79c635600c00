"""The built-in handlers over real sockets: lossless, bounded, and as their RFCs describe them."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import pytest

from esockd_core import open_listener
from esockd_core.handlers import StaticHandler, chargen, daytime, discard, echo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyio.abc import SocketStream

    from esockd_core import Handler, Listener

pytestmark = pytest.mark.anyio

# More than every buffer between the two ends holds.
LARGE = bytes(range(256)) * 65_536


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[tuple[Listener, SocketStream]]:
    with anyio.fail_after(30):
        async with open_listener("test", "127.0.0.1:0", handler) as listener:
            assert listener.port is not None
            async with await anyio.connect_tcp("127.0.0.1", listener.port) as client:
                yield listener, client


async def read_all(client: SocketStream) -> bytes:
    return b"".join([data async for data in client])


async def send_and_finish(client: SocketStream, data: bytes) -> None:
    await client.send(data)
    await client.send_eof()


async def test_echo_returns_every_byte_and_then_its_end() -> None:
    async with serving(echo) as (_, client), anyio.create_task_group() as task_group:
        task_group.start_soon(send_and_finish, client, LARGE)
        assert await read_all(client) == LARGE


async def test_echo_pauses_a_peer_that_does_not_read() -> None:
    async with serving(echo) as (listener, client):
        with anyio.move_on_after(0.5) as patience:
            await client.send(LARGE * 4)
        assert patience.cancelled_caught
        (connection,) = listener.connections
        assert connection.bytes_in < len(LARGE)
        connection.abort()


async def test_discard_reads_everything_and_answers_nothing() -> None:
    async with serving(discard) as (listener, client):
        await send_and_finish(client, LARGE)
        assert await read_all(client) == b""
    assert listener.stats().bytes_in == len(LARGE)


async def test_daytime_sends_one_ascii_line_and_closes() -> None:
    async with serving(daytime) as (_, client):
        line = (await read_all(client)).decode("ascii")
    assert re.fullmatch(r"[A-Z][a-z]+day, [A-Z][a-z]+ \d{1,2}, \d{4} \d\d:\d\d:\d\d-UTC\r\n", line)


async def test_daytime_arrives_although_the_peer_had_sent_something() -> None:
    async with serving(daytime) as (_, client):
        await client.send(b"what time is it?\r\n")
        assert (await read_all(client)).endswith(b"-UTC\r\n")


async def test_chargen_sends_the_rotating_pattern_of_rfc_864() -> None:
    async with serving(chargen) as (_, client):
        received = b""
        while len(received) < 200_000:
            received += await client.receive()
    lines = received.split(b"\r\n")[:-1]
    characters = bytes(range(0x20, 0x7F))
    for number, line in enumerate(lines):
        start = number % 95
        assert line == (characters * 2)[start : start + 72]


async def test_chargen_reads_what_the_peer_sends() -> None:
    async with serving(chargen) as (_, client), anyio.create_task_group() as task_group:
        task_group.start_soon(client.send, LARGE)
        received = 0
        while received < len(LARGE):
            received += len(await client.receive())


async def test_chargen_waits_for_a_peer_that_does_not_read() -> None:
    async with serving(chargen) as (listener, client):
        await client.receive()
        (connection,) = listener.connections
        sent = -1
        while connection.bytes_out > sent:  # until the buffers are full
            sent = connection.bytes_out
            await anyio.sleep(0.2)
        assert sent < 16 * 2**20


async def test_chargen_ends_a_drain_with_a_whole_line() -> None:
    async with serving(chargen) as (listener, client), anyio.create_task_group() as task_group:
        await client.receive(1)
        task_group.start_soon(listener.close)
        assert (await read_all(client)).endswith(b"\r\n")
    assert listener.stats().shutdown_counts == {"normal": 1}


@pytest.mark.parametrize("content", [b"", b"hello\n", LARGE], ids=["nothing", "a line", "16 MiB"])
async def test_static_sends_its_bytes_and_closes(content: bytes) -> None:
    async with serving(StaticHandler(content)) as (_, client):
        assert await read_all(client) == content


async def test_static_arrives_whole_although_the_peer_keeps_sending() -> None:
    async with serving(StaticHandler(LARGE)) as (_, client):
        await client.send(b"x" * 10_000)
        assert await read_all(client) == LARGE
