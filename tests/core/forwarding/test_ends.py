"""What ends a forwarded connection: timeouts, drains, kills and cancellation; no descriptor is left."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, cast

import anyio
import pytest
from anyio.lowlevel import checkpoint
from tests.core.conftest import MIB, connect, until
from tests.core.forwarding.peers import (
    LARGE,
    connected,
    echo,
    forwarding,
    open_files,
    read_all,
    send_and_finish,
    take,
    upstream,
)

from esockd_core import open_listener
from esockd_core.handlers import ForwardHandler

if TYPE_CHECKING:
    from anyio.abc import SocketStream

    from esockd_core._connection.stream import StreamBase


pytestmark = pytest.mark.anyio


async def send_and_receive(stream: SocketStream, data: bytes) -> bytes:
    await stream.send(data)
    return await stream.receive()


async def test_a_half_closed_connection_that_is_silent_ends() -> None:
    async def never_answer(stream: SocketStream) -> None:
        await read_all(stream)
        await anyio.sleep_forever()

    async with (
        upstream(never_answer) as port,
        forwarding(ForwardHandler(("127.0.0.1", port), half_closed_timeout=0.2), linger_timeout=0.1) as listener,
    ):
        async with connected(listener) as client:
            await client.send_eof()
            with pytest.raises(anyio.BrokenResourceError):  # no answer is not an empty answer
                await client.receive()
        await until(lambda: not listener.connections)
        assert listener.stats().shutdown_counts == {"half_closed_timeout": 1}
        assert not listener._site.watch.upstreams


@pytest.mark.parametrize("timeout", [1.5, None])
async def test_a_half_closed_connection_goes_on_while_bytes_come(timeout: float | None) -> None:
    async def answer_slowly(stream: SocketStream) -> None:
        await read_all(stream)
        for _ in range(20):
            await anyio.sleep(0.1)
            await stream.send(b".")

    async with (
        upstream(answer_slowly) as port,
        forwarding(ForwardHandler(("127.0.0.1", port), half_closed_timeout=timeout)) as listener,
        connected(listener) as client,
    ):
        await client.send_eof()
        assert await read_all(client) == b"." * 20


async def test_an_idle_connection_ends_on_both_sides() -> None:
    async def wait(stream: SocketStream) -> None:
        with pytest.raises(anyio.BrokenResourceError):
            await read_all(stream)
        over.set()

    over = anyio.Event()
    async with upstream(wait) as port, forwarding(ForwardHandler(("127.0.0.1", port)), idle_timeout=0.3) as listener:
        async with connected(listener):
            await over.wait()
            await until(lambda: not listener.connections)
        assert listener.stats().shutdown_counts == {"idle_timeout": 1}


@pytest.mark.parametrize("size", [50_000, 32 * MIB])
async def test_an_upstream_that_takes_nothing_ends_the_connection(size: int) -> None:
    """Also when so little waits for it that nobody was paused."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        async with forwarding(ForwardHandler(deaf.getsockname()), send_timeout=0.5) as listener:
            async with connected(listener) as client:
                await until(lambda: bool(listener._site.watch.upstreams))
                (one,) = listener._site.watch.upstreams
                cast("StreamBase", one)._raw_socket().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1024)
                with pytest.raises(anyio.BrokenResourceError):
                    await send_and_receive(client, bytes(size))
            await until(lambda: not listener.connections)
            assert listener.stats().shutdown_counts == {"upstream_send_timeout": 1}


async def test_a_drain_waits_for_forwarded_connections_and_cuts_them_after_its_timeout() -> None:
    async def wait(stream: SocketStream) -> None:
        try:
            await read_all(stream)
        except anyio.BrokenResourceError:
            cut.set()

    cut = anyio.Event()
    async with upstream(wait) as port, forwarding(ForwardHandler(("127.0.0.1", port))) as listener:
        async with connected(listener) as client:
            await client.send(b"hello")
            await until(lambda: bool(listener._site.watch.upstreams))
            await listener.drain(timeout=0.2)
            with pytest.raises(anyio.BrokenResourceError):
                await client.receive()
            await cut.wait()
        assert listener.stats().shutdown_counts == {"shutdown": 1}
        assert not listener._site.watch.upstreams


async def test_a_drain_lets_a_forwarded_connection_end_by_itself() -> None:
    async def answer_at_the_end(stream: SocketStream) -> None:
        await stream.send(await read_all(stream))

    async with (
        upstream(answer_at_the_end) as port,
        forwarding(ForwardHandler(("127.0.0.1", port))) as listener,
        connected(listener) as client,
        anyio.create_task_group() as tasks,
    ):
        await client.send(b"hel")
        await until(lambda: bool(listener._site.watch.upstreams))
        tasks.start_soon(listener.close)
        await until(lambda: listener.state == "draining")
        await send_and_finish(client, b"lo")
        assert await read_all(client) == b"hello"
    assert listener.stats().shutdown_counts == {"normal": 1}


@pytest.mark.parametrize("moment", ["connected", "talking", "half closed"])
async def test_whenever_it_is_killed_no_descriptor_is_left(moment: str) -> None:
    before = 0
    with socket.create_server(("127.0.0.1", 0)) as server:
        for number in range(4):
            async with forwarding(ForwardHandler(server.getsockname())) as listener:
                with connect(listener) as client:
                    await until(lambda: bool(listener._site.watch.upstreams))
                    with server.accept()[0] as accepted:
                        if moment == "talking":
                            client.send(b"hello")
                            assert await take(accepted) == b"hello"
                        if moment == "half closed":
                            client.shutdown(socket.SHUT_WR)
                            assert await take(accepted) == b""
                        await listener.kill()
                        assert not listener._site.watch.upstreams
            if number == 0:
                before = open_files()
        await until(lambda: open_files() <= before)


async def test_whenever_it_is_cancelled_while_it_connects_no_descriptor_is_left() -> None:
    """After each number of turns of the event loop."""
    async with upstream(echo) as port:
        handler = ForwardHandler(("127.0.0.1", port))
        before = 0
        for turns in range(14):
            async with forwarding(handler) as listener, connected(listener):
                await until(lambda: bool(listener.connections))
                for _ in range(turns):
                    await checkpoint()
                await listener.kill()
                assert not listener._site.watch.upstreams
            if turns == 0:
                await anyio.sleep(0.1)
                before = open_files()
        await until(lambda: open_files() <= before)


async def test_what_was_sent_before_somebody_closes_the_client_in_order_still_arrives() -> None:
    async def send_and_wait(stream: SocketStream) -> None:
        await stream.send(LARGE)
        await read_all(stream)

    async with upstream(send_and_wait) as port, forwarding(ForwardHandler(("127.0.0.1", port))) as listener:
        with connect(listener) as client:
            await until(lambda: bool(listener.connections) and listener.connections[0].bytes_out > MIB)
            sent = listener.connections[0].bytes_out
            listener.connections[0].close_nowait("enough")
            received = 0
            while data := await take(client):
                received += len(data)
            assert received >= sent
            client.close()
            await until(lambda: not listener.connections)
            assert listener.stats().shutdown_counts == {"enough": 1}


async def test_a_deadline_around_the_handler_ends_both_sides() -> None:
    async def forward_for_a_while(connection: object) -> None:
        with anyio.move_on_after(0.2):
            await handler(connection)  # type: ignore[arg-type]

    async with upstream(echo) as port:
        handler = ForwardHandler(("127.0.0.1", port))
        with anyio.fail_after(20):
            async with open_listener("gateway", "127.0.0.1:0", forward_for_a_while) as listener:
                async with connected(listener) as client:
                    await client.send(b"hello")
                    assert await client.receive() == b"hello"
                    with pytest.raises(anyio.BrokenResourceError):
                        await client.receive()
                await until(lambda: not listener.connections)
                assert not listener._site.watch.upstreams
