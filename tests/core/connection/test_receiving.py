"""What a handler receives: every byte once and in order, however it asks, waits, or is cancelled."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
from tests.core.conftest import ASYNCIO_ONLY, Serve, numbered, reasons, receive_all
from tests.core.connection.strangers import serving
from tests.core.connection.takers import dial_slow
from tests.core.tls_clients import run

if TYPE_CHECKING:
    from collections.abc import Callable

    from esockd_core import StreamConnection, TlsOptions

pytestmark = pytest.mark.anyio


async def test_a_sender_of_single_bytes_is_read_in_order(serve: Serve) -> None:
    received = bytearray()

    async def collect(connection: StreamConnection) -> None:
        async for data in connection:
            received.extend(data)

    async with serve(collect) as (_, client):
        for byte in b"one byte at a time":
            await client.send(bytes([byte]))
            await anyio.lowlevel.checkpoint()
    assert bytes(received) == b"one byte at a time"


async def test_receive_never_returns_more_than_max_bytes_nor_nothing(serve: Serve) -> None:
    sent = numbered(1_000_000)
    sizes = random.Random(1)

    async def answer(connection: StreamConnection) -> None:
        received = bytearray()
        with suppress(anyio.EndOfStream):
            while True:
                size = sizes.choice((1, 7, 1_000, 65_536, 1_000_000))
                data = await connection.receive(size)
                assert 0 < len(data) <= size
                received += data
        await connection.send(b"same" if received == sent else b"different")

    async with serve(answer) as (_, client):
        await client.send(sent)
        await client.send_eof()
        assert await receive_all(client) == b"same"


async def test_receiving_single_bytes_from_a_full_buffer_is_not_quadratic_and_not_unbounded(serve: Serve) -> None:
    """A read of one byte must neither copy the rest nor let the peer push a whole new buffer."""
    held_most = 0
    pushed = 0

    async def sip(connection: StreamConnection) -> None:
        nonlocal held_most
        for taken in range(1, 20_001):
            await connection.receive(1)
            held_most = max(held_most, connection.bytes_in - taken)
        connection.abort()

    async with serve(sip, read_buffer_bytes=65_536) as (_, client):
        with suppress(anyio.BrokenResourceError):
            while True:
                await client.send(bytes(65_536))
                pushed += 65_536
    assert held_most <= 65_536 + 262_144  # the mark, and one read of the loop (uvloop's is the largest)
    assert pushed > 0


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("wrong", [0, -1, 1.5, "1", None])
async def test_receive_of_no_whole_number_of_bytes_is_an_error_and_takes_nothing(
    tls: TlsOptions, wrong: Any, *, encrypted: bool
) -> None:
    """Before a byte has come, and when some are kept for the handler."""

    async def answer(connection: StreamConnection) -> None:
        with pytest.raises(ValueError, match=f"max_bytes is {wrong!r}; receive"):
            await connection.receive(wrong)
        first = await connection.receive(1)
        with pytest.raises(ValueError, match=f"max_bytes is {wrong!r}; receive"):
            await connection.receive(wrong)
        await connection.send(first + await connection.receive_exactly(4))

    def talk() -> bytes:
        with dial_slow(listener, tls=encrypted) as client:
            client.sendall(b"hello")
            return client.recv(100)

    async with serving(answer, **({"tls": tls} if encrypted else {})) as listener:
        assert await run(talk) == b"hello"
        assert await reasons(listener) == {"normal": 1}


async def test_two_tasks_cannot_receive_at_once(serve: Serve) -> None:
    outcomes: list[str] = []

    async def handle(connection: StreamConnection) -> None:
        async def receive() -> None:
            try:
                outcomes.append((await connection.receive()).decode())
            except anyio.BusyResourceError:
                outcomes.append("busy")
                await connection.send(b"go")

        async with anyio.create_task_group() as task_group:
            task_group.start_soon(receive)
            task_group.start_soon(receive)

    async with serve(handle) as (_, client):
        assert await client.receive() == b"go"
        await client.send(b"hello")
        assert await receive_all(client) == b""
    assert outcomes == ["busy", "hello"]


async def test_receives_after_the_end_of_stream_say_so_again(serve: Serve) -> None:
    async def handle(connection: StreamConnection) -> None:
        assert await connection.receive() == b"last"
        for _ in range(50):
            with pytest.raises(anyio.EndOfStream):
                await connection.receive()
        assert [data async for data in connection] == []
        await connection.send(b"fine")

    async with serve(handle) as (_, client):
        await client.send(b"last")
        await client.send_eof()
        assert await receive_all(client) == b"fine"


async def test_a_receive_that_waits_ends_when_another_task_closes_the_connection(serve: Serve) -> None:
    async def handle(connection: StreamConnection) -> None:
        async with anyio.create_task_group() as task_group:

            async def receive() -> None:
                with pytest.raises(anyio.ClosedResourceError):
                    await connection.receive()

            task_group.start_soon(receive)
            await anyio.wait_all_tasks_blocked()
            await connection.send(b"x" * 3_000_000)
            await connection.aclose()

    async with serve(handle) as (listener, client):
        assert len(await receive_all(client)) == 3_000_000
    assert listener.stats().shutdown_counts == {"normal": 1}


# Backpressure


async def test_a_handler_that_never_reads_stops_its_client(serve: Serve) -> None:
    async def hold(connection: StreamConnection) -> None:
        await connection.wait_draining()

    async with serve(hold) as (listener, client):
        pushed = 0
        with suppress(TimeoutError):
            while pushed < 1 << 27:
                with anyio.fail_after(0.3):  # by then it is stuck; were it only slow, the assertions hold all the same
                    await client.send(bytes(1 << 18))
                pushed += 1 << 18
        assert pushed < 1 << 27
        assert listener.connections[0].bytes_in <= 65_536 + 262_144
        await client.aclose()


# Cancellation


async def receive_with_cancellations(connection: StreamConnection, total: int, patience: Callable[[], float]) -> bytes:
    """Receive so many bytes by calls that are cancelled at random moments."""
    received = bytearray()
    while len(received) < total:
        with anyio.move_on_after(patience()):
            received += await connection.receive(5_000)
    return bytes(received)


@pytest.mark.parametrize("seed", range(3))
async def test_receives_cancelled_at_random_moments_lose_no_byte(serve: Serve, seed: int) -> None:
    chance = random.Random(seed)
    sent = numbered(400_000)

    async def handle(connection: StreamConnection) -> None:
        received = await receive_with_cancellations(
            connection, len(sent), lambda: chance.choice((0, 0, 0.000_01, 0.000_1, 0.001))
        )
        await connection.send(b"same" if received == sent else b"different")

    async with serve(handle) as (_, client):
        left = memoryview(sent)
        while left:
            size = chance.randrange(1, 20_000)
            await client.send(bytes(left[:size]))
            left = left[size:]
            for _ in range(chance.randrange(4)):
                await anyio.lowlevel.checkpoint()
        assert await receive_all(client) == b"same"


@ASYNCIO_ONLY
@pytest.mark.parametrize("seed", range(3))
async def test_native_cancellation_and_asyncio_timeouts_lose_no_byte(serve: Serve, seed: int) -> None:
    chance = random.Random(seed)
    sent = numbered(400_000)

    async def handle(connection: StreamConnection) -> None:
        received = bytearray()

        async def receive_some() -> None:
            # The only place that keeps what it got: a byte that receive() gave away to a cancelled task is lost.
            received.extend(await connection.receive(5_000))

        while len(received) < len(sent):
            task = asyncio.ensure_future(receive_some())
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            with suppress(TimeoutError):
                async with asyncio.timeout(chance.choice((-1, 0, 0.000_1, 0.001))):
                    received.extend(await connection.receive(5_000))
        await connection.send(b"same" if received == sent else b"different")

    async with serve(handle) as (_, client):
        left = memoryview(sent)
        while left:
            size = chance.randrange(1, 20_000)
            await client.send(bytes(left[:size]))
            left = left[size:]
            await asyncio.sleep(0)
        assert await receive_all(client) == b"same"


async def test_a_cancelled_scope_takes_nothing_of_what_is_buffered(serve: Serve) -> None:
    async def handle(connection: StreamConnection) -> None:
        assert await connection.receive(1) == b"a"  # the rest is buffered by now, or will be in vain
        for _ in range(100):
            with anyio.CancelScope() as scope:
                scope.cancel()
                await connection.receive()
                pytest.fail("a cancelled scope let a receive through")
            with anyio.CancelScope() as scope:
                scope.cancel()
                async for _data in connection:
                    pytest.fail("a cancelled scope let an iteration through")
        received = b""
        while len(received) < 4:
            received += await connection.receive()
        await connection.send(received)

    async with serve(handle) as (_, client):
        await client.send(b"abcde")
        assert await receive_all(client) == b"bcde"


async def test_receives_that_never_wait_give_way_to_other_tasks(serve: Serve) -> None:
    taken = 0
    done = False

    async def handle(connection: StreamConnection) -> None:
        nonlocal taken, done
        with suppress(anyio.EndOfStream):
            while True:
                await connection.receive(1)
                taken += 1
        done = True

    async with serve(handle) as (_, client):
        await client.send(bytes(20_000))
        await client.send_eof()
        longest, before = 0, taken
        while not done:
            await anyio.lowlevel.checkpoint()
            longest, before = max(longest, taken - before), taken
    assert taken == 20_000
    assert longest <= 64


async def test_a_client_that_floods_does_not_starve_another(serve: Serve) -> None:
    async def echo(connection: StreamConnection) -> None:
        async for data in connection:
            await connection.send(data)

    async with serve(echo) as (listener, flooding), anyio.create_task_group() as task_group:
        assert listener.port is not None

        async def flood() -> None:
            while True:
                await flooding.send(bytes(1_000))

        async def swallow() -> None:
            async for _ in flooding:
                pass

        task_group.start_soon(flood)
        task_group.start_soon(swallow)
        async with await anyio.connect_tcp("127.0.0.1", listener.port) as good:
            for _ in range(50):
                await good.send(b"x")
                assert await good.receive() == b"x"
        task_group.cancel_scope.cancel()
