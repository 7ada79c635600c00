"""Forwarding: every byte both ways, the end of each side, and what a slow side costs."""

from __future__ import annotations

import random
import socket
from typing import TYPE_CHECKING, cast

import anyio
import pytest
from anyio.lowlevel import checkpoint
from tests.core.conftest import MIB, connect, until
from tests.core.forwarding.peers import LARGE, connected, echo, forwarding, read_all, send_and_finish, take, upstream

from esockd_core import handlers, open_listener
from esockd_core.handlers import ForwardHandler

if TYPE_CHECKING:
    from pathlib import Path

    from anyio.abc import SocketStream

    from esockd_core._connection.stream import StreamBase


pytestmark = pytest.mark.anyio


async def test_bytes_go_both_ways_and_each_end_becomes_the_others() -> None:
    async with upstream(echo) as port, forwarding(ForwardHandler(("127.0.0.1", port))) as listener:
        async with connected(listener) as client, anyio.create_task_group() as tasks:
            tasks.start_soon(send_and_finish, client, LARGE)
            assert await read_all(client) == LARGE
        await until(lambda: not listener.connections)
        stats = listener.stats()
    assert stats.shutdown_counts == {"normal": 1}
    assert (stats.bytes_in, stats.bytes_out) == (len(LARGE), len(LARGE))


@pytest.mark.parametrize("seed", range(3))
async def test_pieces_of_any_size_arrive_in_order(seed: int) -> None:
    chance = random.Random(seed)
    sizes = [chance.choice((1, 2, chance.randrange(1, 100), chance.randrange(1, 300_000))) for _ in range(120)]
    pieces = [chance.randbytes(size) for size in sizes]

    async def send_pieces(stream: SocketStream) -> None:
        for piece in pieces:
            await stream.send(piece)
            if chance.random() < 0.2:
                await checkpoint()
        await stream.send_eof()

    async def both(stream: SocketStream) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send_pieces, stream)
            received.append(await read_all(stream))

    received: list[bytes] = []
    async with upstream(both) as port, forwarding(ForwardHandler(("127.0.0.1", port))) as listener:
        async with connected(listener) as client:
            await both(client)
        await until(lambda: len(received) == 2)
    assert received == [b"".join(pieces)] * 2


async def test_a_client_that_finishes_still_gets_its_answer() -> None:
    async def answer_at_the_end(stream: SocketStream) -> None:
        question = await read_all(stream)
        await stream.send(question[::-1])

    async with (
        upstream(answer_at_the_end) as port,
        forwarding(ForwardHandler(("127.0.0.1", port))) as listener,
        connected(listener) as client,
    ):
        await send_and_finish(client, b"abc")
        assert await read_all(client) == b"cba"


async def test_an_upstream_that_finishes_still_gets_what_the_client_sends() -> None:
    async def finish_first(stream: SocketStream) -> None:
        await send_and_finish(stream, b"hello")
        received.append(await read_all(stream))

    received: list[bytes] = []
    async with upstream(finish_first) as port, forwarding(ForwardHandler(("127.0.0.1", port))) as listener:
        async with connected(listener) as client:
            assert await read_all(client) == b"hello"
            await send_and_finish(client, LARGE)
            await until(lambda: bool(received))
        await until(lambda: not listener.connections)
        assert listener.stats().shutdown_counts == {"normal": 1}
    assert received == [LARGE]


async def test_an_upstream_may_speak_first() -> None:
    async def greet(stream: SocketStream) -> None:
        await stream.send(b"220 ready")
        await stream.receive()

    async with (
        upstream(greet) as port,
        forwarding(ForwardHandler(("127.0.0.1", port))) as listener,
        connected(listener) as client,
    ):
        assert await client.receive() == b"220 ready"


async def test_what_a_client_sent_before_its_upstream_was_found_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    found = anyio.Event()

    async def resolve(*_: object, **__: object) -> list[object]:
        await found.wait()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr("esockd_core._forwarding.upstreams.anyio.getaddrinfo", resolve)
    async with (
        upstream(echo) as port,
        forwarding(ForwardHandler(f"upstream.test:{port}")) as listener,
        connected(listener) as client,
    ):
        await send_and_finish(client, b"early")
        await until(lambda: bool(listener.connections))
        await anyio.sleep(0.05)
        found.set()
        assert await read_all(client) == b"early"


@pytest.mark.parametrize("slow", ["upstream", "client"])
async def test_a_side_that_does_not_read_pauses_the_other_and_memory_is_bounded(slow: str) -> None:
    async def push(raw: socket.socket) -> None:
        for _ in range(64):
            left = memoryview(LARGE)[:MIB]
            while left:
                await anyio.wait_writable(raw)
                left = left[raw.send(left) :]
                moved[0] = len(left)
            pushed.append(MIB)
        raw.shutdown(socket.SHUT_WR)

    def held() -> int:
        sides = cast("list[StreamBase]", [*site.watch.upstreams, *site.registry])
        return sum(side.unsent_bytes() for side in sides)

    pushed: list[int] = []
    moved = [0]
    with socket.create_server(("127.0.0.1", 0)) as server:
        handler = ForwardHandler(server.getsockname())
        async with forwarding(handler, send_timeout=None) as listener, anyio.create_task_group() as tasks:
            site = listener._site
            with connect(listener) as client:
                await until(lambda: bool(site.watch.upstreams))
                with server.accept()[0] as accepted:
                    accepted.setblocking(False)
                    fast, deaf = (client, accepted) if slow == "upstream" else (accepted, client)
                    tasks.start_soon(push, fast)
                    before = None
                    while before != (len(pushed), moved[0]) or not held():  # until nothing moves any more
                        before = (len(pushed), moved[0])
                        await anyio.sleep(0.3)
                    assert before[0] < 48
                    assert held() <= 65_536 + 262_144
                    received = 0
                    while data := await take(deaf):
                        received += len(data)
                    assert received == 64 * MIB


async def test_hundreds_at_once_keep_their_bytes_apart() -> None:
    async def talk(number: int) -> None:
        chance = random.Random(number)
        async with connected(listener) as client:
            for _ in range(5):
                data = chance.randbytes(chance.randrange(1, 5_000))
                await client.send(data)
                received = b""
                while len(received) < len(data):
                    received += await client.receive()
                assert received == data

    async with upstream(echo) as port, forwarding(ForwardHandler(("127.0.0.1", port))) as listener:
        async with anyio.create_task_group() as tasks:
            for number in range(200):
                tasks.start_soon(talk, number)
        await until(lambda: not listener.connections)
        assert listener.stats().shutdown_counts == {"normal": 200}
        assert not listener._site.watch.upstreams


@pytest.mark.linux
async def test_unix_upstreams_are_reached_by_path_and_by_abstract_name(tmp_path: Path) -> None:
    for path in (f"{tmp_path}/upstream", f"@esockd-test-{tmp_path.name}-{id(tmp_path)}"):
        async with (
            open_listener("echo", f"unix:{path}", handlers.echo),
            forwarding(ForwardHandler(f"unix:{path}")) as listener,
            connected(listener) as client,
        ):
            await client.send(b"hello")
            assert await client.receive() == b"hello"


async def test_unix_clients_are_forwarded(tmp_path: Path) -> None:
    async with (
        upstream(echo) as port,
        forwarding(ForwardHandler(("127.0.0.1", port)), f"unix:{tmp_path}/gateway"),
        await anyio.connect_unix(f"{tmp_path}/gateway") as client,
    ):
        await client.send(b"hello")
        await client.send_eof()
        assert await read_all(client) == b"hello"
