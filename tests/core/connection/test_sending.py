"""What a handler sends: every byte once and in order, bounded memory, and clear ends."""

from __future__ import annotations

import array
import asyncio
import random
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio.lowlevel import checkpoint
from tests.core.conftest import ASYNCIO_ONLY, MIB, MORE_THAN_KERNELS_HOLD, Serve, give_up, numbered, receive_all, settle

if TYPE_CHECKING:
    from esockd_core import StreamConnection

pytestmark = pytest.mark.anyio


async def test_eight_mebibytes_go_each_way_at_once(serve: Serve) -> None:
    sent = numbered(8 * MIB)

    async def handle(connection: StreamConnection) -> None:
        received = bytearray()

        async def receive() -> None:
            async for data in connection:
                received.extend(data)

        async with anyio.create_task_group() as task_group:
            task_group.start_soon(receive)
            await connection.send(sent)
            await connection.send_eof()
        assert received == sent

    async with serve(handle) as (listener, client), anyio.create_task_group() as task_group:

        async def push() -> None:
            await client.send(sent)
            await client.send_eof()

        task_group.start_soon(push)
        assert await receive_all(client) == sent
    assert listener.stats().shutdown_counts == {"normal": 1}
    assert (listener.stats().bytes_in, listener.stats().bytes_out) == (8 * MIB, 8 * MIB)


async def test_pipelined_requests_are_answered_in_order(serve: Serve) -> None:
    async def upper(connection: StreamConnection) -> None:
        async for data in connection:
            await connection.send(data.upper())

    async with serve(upper) as (_, client):
        requests = b"".join(b"request %d\n" % number for number in range(5_000))
        await client.send(requests)
        await client.send_eof()
        assert await receive_all(client) == requests.upper()


@pytest.mark.parametrize("nowait", [False, True], ids=["send", "send_nowait"])
async def test_a_buffer_that_is_changed_after_sending_was_sent_as_it_was(serve: Serve, *, nowait: bool) -> None:
    """Also while its bytes still wait for the peer, and the buffer is free to grow."""
    size = MORE_THAN_KERNELS_HOLD
    changed = anyio.Event()

    async def handle(connection: StreamConnection) -> None:
        buffer = bytearray(b"a" * size)
        if nowait:
            connection.send_nowait(buffer)  # type: ignore[arg-type] # as anyio, we promise bytes only
        else:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(connection.send, buffer)  # type: ignore[arg-type]
                await anyio.wait_all_tasks_blocked()  # now it waits for the peer
                tasks.cancel_scope.cancel()
        buffer[:] = b"b" * size
        buffer += b"c"
        changed.set()
        await connection.send(array.array("I", [0x64646464, 0x64646464]))  # type: ignore[arg-type]

    async with serve(handle) as (listener, client):
        await changed.wait()
        assert await receive_all(client) == b"a" * size + b"dddddddd"
    assert listener.stats().bytes_out == size + 8


@pytest.mark.parametrize("not_bytes", ["text", 5, None])
async def test_sending_what_is_not_bytes_is_a_type_error_and_sends_nothing(serve: Serve, not_bytes: object) -> None:
    async def handle(connection: StreamConnection) -> None:
        with pytest.raises(TypeError):
            await connection.send(not_bytes)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            connection.send_nowait(not_bytes)  # type: ignore[arg-type]
        assert connection.bytes_out == 0

    async with serve(handle) as (listener, client):
        assert await receive_all(client) == b""
    assert listener.stats().shutdown_counts == {"normal": 1}


async def test_sending_nothing_is_allowed(serve: Serve) -> None:
    async def handle(connection: StreamConnection) -> None:
        await connection.send(b"")
        connection.send_nowait(b"")

    async with serve(handle) as (listener, client):
        assert await receive_all(client) == b""
    assert listener.stats().shutdown_counts == {"normal": 1}


# Waiting and cancellation


async def test_send_waits_for_a_client_that_does_not_read(serve: Serve) -> None:
    sent = anyio.Event()

    async def handle(connection: StreamConnection) -> None:
        await connection.send(bytes(MORE_THAN_KERNELS_HOLD))
        sent.set()

    async with serve(handle) as (_, client):
        await client.receive(1)
        await anyio.wait_all_tasks_blocked()
        assert not sent.is_set()
        assert len(await receive_all(client)) == MORE_THAN_KERNELS_HOLD - 1


async def test_a_send_in_a_cancelled_scope_sends_nothing(serve: Serve) -> None:
    async def handle(connection: StreamConnection) -> None:
        for _ in range(100):
            with anyio.CancelScope() as scope:
                scope.cancel()
                await connection.send(b"never")
                pytest.fail("a cancelled scope let a send through")
        assert connection.bytes_out == 0
        await connection.send(b"sent")

    async with serve(handle) as (_, client):
        assert await receive_all(client) == b"sent"


async def test_a_send_cancelled_while_it_waits_still_delivers_its_bytes(serve: Serve) -> None:
    sent = numbered(MORE_THAN_KERNELS_HOLD)
    cancelled = anyio.Event()

    async def handle(connection: StreamConnection) -> None:
        await give_up(lambda: connection.send(sent))
        cancelled.set()
        await connection.send(b"end")

    async with serve(handle) as (_, client):
        await cancelled.wait()  # the client reads nothing before: the send had to wait
        assert await receive_all(client) == sent + b"end"


async def test_sends_cancelled_again_and_again_do_not_pile_up_in_memory(serve: Serve) -> None:
    """A send whose forerunner still waits takes its bytes only when there is room, so a cancelled one took none."""
    items = 0
    done = anyio.Event()

    async def handle(connection: StreamConnection) -> None:
        nonlocal items
        await connection.send(b"-")
        await give_up(lambda: connection.send(bytes(MORE_THAN_KERNELS_HOLD)))
        before = connection.bytes_out
        for _ in range(100):
            with anyio.move_on_after(0):
                await connection.send(bytes(MIB))
            with anyio.move_on_after(0.000_1):
                await connection.send(bytes(MIB))
        items = connection.bytes_out - before
        done.set()

    async with serve(handle) as (_, client):
        await done.wait()
        assert items == 0
        assert len(await receive_all(client)) == MORE_THAN_KERNELS_HOLD + 1


@pytest.mark.parametrize("seed", range(2))
async def test_sends_cancelled_at_random_moments_are_whole_or_absent(serve: Serve, seed: int) -> None:
    chance = random.Random(seed)

    async def handle(connection: StreamConnection) -> None:
        for number in range(200):
            with anyio.move_on_after(chance.choice((0, 0.000_05, 0.000_5, 1))):
                await connection.send(array.array("H", [number]).tobytes() * chance.choice((1, 1_000, 100_000)))

    async with serve(handle) as (listener, client):
        received = await receive_all(client)
    assert len(received) == listener.stats().bytes_out
    numbers = array.array("H", received).tolist()
    assert numbers == sorted(numbers)
    assert len(numbers) > 200


@ASYNCIO_ONLY
async def test_a_send_in_a_natively_cancelled_task_leaves_the_stream_whole(serve: Serve) -> None:
    cancelled = anyio.Event()

    async def handle(connection: StreamConnection) -> None:
        task = asyncio.ensure_future(connection.send(b"a" * MORE_THAN_KERNELS_HOLD))
        await settle()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await connection.send(b"b")
        cancelled.set()
        await connection.send(b"c")

    async with serve(handle) as (_, client):
        await client.receive(1)
        await cancelled.wait()
        received = await receive_all(client)
        assert received.rstrip(b"c") == b"a" * (MORE_THAN_KERNELS_HOLD - 1)


async def test_sends_of_several_tasks_do_not_mix(serve: Serve) -> None:
    async def handle(connection: StreamConnection) -> None:
        async with anyio.create_task_group() as task_group:
            for letter in (b"a", b"b", b"c"):
                for _ in range(5):
                    task_group.start_soon(connection.send, letter * MIB)

    async with serve(handle) as (_, client):
        await anyio.wait_all_tasks_blocked()
        received = await receive_all(client)
    blocks = {received[place : place + MIB] for place in range(0, len(received), MIB)}
    assert blocks == {b"a" * MIB, b"b" * MIB, b"c" * MIB}
    assert len(received) == 15 * MIB


async def test_sends_that_never_wait_give_way_to_other_tasks(serve: Serve) -> None:
    sent = 0
    done = False

    async def handle(connection: StreamConnection) -> None:
        nonlocal sent, done
        assert await connection.receive() == b"go"
        for _ in range(5_000):
            await connection.send(b"x")
            sent += 1
        done = True

    async with serve(handle) as (_, client):
        await client.send(b"go")
        longest, before = 0, 0
        while not done:
            await checkpoint()
            longest, before = max(longest, sent - before), sent
        assert longest <= 64
        assert len(await receive_all(client)) == 5_000


async def test_send_nowait_past_the_hard_mark_takes_nothing(serve: Serve) -> None:
    refused = anyio.Event()
    taken = 0

    async def handle(connection: StreamConnection) -> None:
        nonlocal taken
        with suppress(anyio.WouldBlock):
            while True:
                connection.send_nowait(taken.to_bytes(4, "big") * 25_000)
                taken += 1
        before = connection.bytes_out
        for _ in range(10):
            with pytest.raises(anyio.WouldBlock):
                connection.send_nowait(b"none of these bytes" * 100_000)
        assert connection.bytes_out == before
        refused.set()
        await connection.send(b"last")

    async with serve(handle, write_limit_bytes=MIB) as (listener, client):
        await refused.wait()
        assert await receive_all(client) == b"".join(n.to_bytes(4, "big") * 25_000 for n in range(taken)) + b"last"
    assert listener.stats().bytes_out == taken * 100_000 + 4


async def test_a_single_large_send_nowait_is_taken_when_nothing_waits(serve: Serve) -> None:
    """However low the mark: the next one would find the mark passed."""

    async def handle(connection: StreamConnection) -> None:
        connection.send_nowait(b"a" * MORE_THAN_KERNELS_HOLD)
        with pytest.raises(anyio.WouldBlock):
            connection.send_nowait(b"b")

    async with serve(handle, write_buffer_bytes=1_000, write_limit_bytes=1_000) as (_, client):
        assert await receive_all(client) == b"a" * MORE_THAN_KERNELS_HOLD


# Ends


async def test_nothing_can_be_sent_after_the_end_was(serve: Serve) -> None:
    async def handle(connection: StreamConnection) -> None:
        await connection.send(b"reply")
        await connection.send_eof()
        await connection.send_eof()
        with pytest.raises(anyio.ClosedResourceError):
            await connection.send(b"more")
        with pytest.raises(anyio.ClosedResourceError):
            connection.send_nowait(b"more")
        assert await connection.receive() == b"thanks"

    async with serve(handle) as (listener, client):
        assert await receive_all(client) == b"reply"
        await client.send(b"thanks")
    assert listener.stats().shutdown_counts == {"normal": 1}


async def test_nothing_can_be_sent_or_received_after_closing(serve: Serve) -> None:
    async def handle(connection: StreamConnection) -> None:
        await connection.aclose()
        await connection.aclose()
        assert connection.state == "closing"
        for _ in range(40):
            with pytest.raises(anyio.ClosedResourceError):
                await connection.send(b"more")
            with pytest.raises(anyio.ClosedResourceError):
                connection.send_nowait(b"more")
            with pytest.raises(anyio.ClosedResourceError):
                await connection.receive()
        with pytest.raises(anyio.ClosedResourceError):
            await connection.send_eof()
        with pytest.raises(anyio.ClosedResourceError):
            await connection.__anext__()

    async with serve(handle) as (listener, client):
        assert await receive_all(client) == b""
    assert listener.stats().shutdown_counts == {"normal": 1}


async def test_a_close_by_another_task_reaches_a_task_that_only_sends(serve: Serve) -> None:
    """Whichever of its steps the sender is at: it gets a clear error, and the stream ends where it was closed."""
    for steps in range(6):

        async def handle(connection: StreamConnection, steps: int = steps) -> None:
            async with anyio.create_task_group() as task_group:

                async def send_for_ever() -> None:
                    with suppress(anyio.ClosedResourceError):
                        while True:
                            await connection.send(b"x")

                task_group.start_soon(send_for_ever)
                for _ in range(steps):
                    await checkpoint()
                await connection.aclose()

        async with serve(handle) as (listener, client):
            received = await receive_all(client)
        assert len(received) == listener.stats().bytes_out
        assert listener.stats().shutdown_counts == {"normal": 1}
