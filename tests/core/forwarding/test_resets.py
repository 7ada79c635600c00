"""A side that breaks off: the other sees a reset, or an end only where every byte came."""

from __future__ import annotations

import random
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio
import pytest
from tests.core.conftest import connect, until
from tests.core.forwarding.peers import LARGE, RESET_AT_CLOSE, connected, forwarding, read_all, reset, take, upstream
from tests.patience import PATIENCE_S

from esockd_core.handlers import ForwardHandler

if TYPE_CHECKING:
    from anyio.abc import SocketStream


pytestmark = pytest.mark.anyio


async def test_a_reset_of_the_client_resets_the_upstream() -> None:
    async def wait(stream: SocketStream) -> None:
        try:
            await read_all(stream)
        except anyio.BrokenResourceError as error:
            seen.append(error)

    seen: list[Exception] = []
    async with upstream(wait) as port, forwarding(ForwardHandler(("127.0.0.1", port))) as listener:
        async with connected(listener) as client:
            await client.send(b"half a mess")
            await until(lambda: bool(listener._site.watch.upstreams))
            reset(client)
        await until(lambda: bool(seen))
        await until(lambda: not listener.connections)
        assert listener.stats().shutdown_counts == {"reset": 1}
        assert not listener._site.watch.upstreams


async def test_a_reset_of_the_upstream_resets_the_client() -> None:
    async def break_off(stream: SocketStream) -> None:
        await stream.receive()
        reset(stream)

    async with upstream(break_off) as port, forwarding(ForwardHandler(("127.0.0.1", port))) as listener:
        async with connected(listener) as client:
            await client.send(b"hello")
            with pytest.raises(anyio.BrokenResourceError):
                await client.receive()
        await until(lambda: not listener.connections)
        assert listener.stats().shutdown_counts == {"upstream_reset": 1}


async def test_a_client_has_the_whole_answer_of_an_upstream_that_is_gone_then() -> None:
    """What the client sends meanwhile makes the upstream's kernel reset the connection: nothing of it is cut short."""

    async def answer_and_go(stream: SocketStream) -> None:
        await stream.receive(1)
        await stream.send(LARGE)

    async with (
        upstream(answer_and_go) as port,
        forwarding(ForwardHandler(("127.0.0.1", port)), linger_timeout=0.1) as listener,
    ):
        async with connected(listener) as client:
            await client.send(b"?")
            received = await client.receive(1)
            received += await read_all(client)
            assert received == LARGE
            with suppress(anyio.BrokenResourceError):
                while listener.connections:
                    await client.send(b"more")
                    await anyio.sleep(0.01)
        await until(lambda: not listener.connections)
        assert listener.stats().shutdown_counts == {"normal": 1}


class Side:
    """One end of a forwarded connection, which sends, finishes, vanishes or resets at random."""

    def __init__(self, chance: random.Random) -> None:
        self.sent = b""
        self.received = b""
        self.saw_end = False
        self.is_broken = False
        self._data = chance.randbytes(chance.randrange(1, 400_000))
        self._end = chance.choice(("finish", "finish", "vanish", "reset"))

    async def talk(self, raw: socket.socket) -> None:
        with raw, anyio.fail_after(PATIENCE_S):
            raw.setblocking(False)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._read, raw)
                await self._write(raw)
                if self._end != "finish":
                    tasks.cancel_scope.cancel()

    async def _read(self, raw: socket.socket) -> None:
        with suppress(OSError):
            while data := await take(raw):
                self.received += data
            self.saw_end = True

    async def _write(self, raw: socket.socket) -> None:
        try:
            while len(self.sent) < len(self._data):
                await anyio.wait_writable(raw)
                count = raw.send(self._data[len(self.sent) :][:65_536])
                self.sent += self._data[len(self.sent) :][:count]
            if self._end == "finish":
                raw.shutdown(socket.SHUT_WR)
            elif self._end == "reset":
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
        except OSError:
            self.is_broken = True  # a reset is told once: to whoever sends, or to whoever receives


@pytest.mark.parametrize("seed", range(4))
async def test_an_end_of_file_means_that_every_byte_came_whatever_breaks(seed: int) -> None:
    """Half of the time the listener is killed in the midst."""
    chance = random.Random(seed)
    pairs: list[tuple[Side, Side]] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        handler = ForwardHandler(server.getsockname())
        async with forwarding(handler, linger_timeout=0.1) as listener, anyio.create_task_group() as tasks:
            for _ in range(30):
                pairs.append((Side(chance), Side(chance)))
                tasks.start_soon(pairs[-1][0].talk, connect(listener))
                await anyio.wait_readable(server)
                tasks.start_soon(pairs[-1][1].talk, server.accept()[0])
            if seed % 2:
                await listener.kill()
    for client, served in pairs:
        for sink, source in ((client, served), (served, client)):
            assert source.sent.startswith(sink.received)
            assert not sink.saw_end or sink.is_broken or sink.received == source.sent
    assert sum(client.saw_end for client, _ in pairs) > (0 if seed % 2 else 5)


async def test_a_client_that_is_killed_in_the_midst_of_its_answer_sees_no_end_of_file() -> None:
    async def begin(stream: SocketStream) -> None:
        await stream.send(b"partial")
        await anyio.sleep_forever()

    async with (
        upstream(begin) as port,
        forwarding(ForwardHandler(port)) as listener,
        connected(listener) as client,
    ):
        assert await client.receive() == b"partial"
        assert await listener.kill_connections("all") == 1
        with pytest.raises(anyio.BrokenResourceError):
            await client.receive()
