"""Forwarding: every byte both ways, the end of each side, and what a slow side costs."""

from __future__ import annotations

import random
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio.lowlevel import checkpoint
from tests.core.conftest import connect, until
from tests.core.forwarding import RESET_AT_CLOSE, connected, echo, forwarding, open_files, read_all, reset, upstream

from esockd_core import handlers, open_listener
from esockd_core.handlers import ForwardHandler

if TYPE_CHECKING:
    from pathlib import Path

    from anyio.abc import SocketStream

pytestmark = pytest.mark.anyio

MIB = 2**20
LARGE = random.Random(1).randbytes(MIB) * 8  # more than every buffer between the ends holds


async def send_and_finish(stream: SocketStream, data: bytes) -> None:
    await stream.send(data)
    await stream.send_eof()


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

    monkeypatch.setattr("esockd_core._upstreams.anyio.getaddrinfo", resolve)
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
        return sum(side.unsent_bytes() for side in (*service.upstreams, *service.connections.values()))

    pushed: list[int] = []
    moved = [0]
    with socket.create_server(("127.0.0.1", 0)) as server:
        handler = ForwardHandler(server.getsockname())
        async with forwarding(handler, send_timeout=None) as listener, anyio.create_task_group() as tasks:
            service = listener._service
            with connect(listener) as client:
                await until(lambda: bool(service.upstreams))
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


async def send_and_receive(stream: SocketStream, data: bytes) -> bytes:
    await stream.send(data)
    return await stream.receive()


async def take(raw: socket.socket) -> bytes:
    await anyio.wait_readable(raw)
    return raw.recv(MIB)


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
            await until(lambda: bool(listener._service.upstreams))
            reset(client)
        await until(lambda: bool(seen))
        await until(lambda: not listener.connections)
        assert listener.stats().shutdown_counts == {"reset": 1}
        assert not listener._service.upstreams


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
        assert not listener._service.upstreams


@pytest.mark.parametrize("timeout", [0.5, None])
async def test_a_half_closed_connection_goes_on_while_bytes_come(timeout: float | None) -> None:
    async def answer_slowly(stream: SocketStream) -> None:
        await read_all(stream)
        for _ in range(10):
            await anyio.sleep(0.1)
            await stream.send(b".")

    async with (
        upstream(answer_slowly) as port,
        forwarding(ForwardHandler(("127.0.0.1", port), half_closed_timeout=timeout)) as listener,
        connected(listener) as client,
    ):
        await client.send_eof()
        assert await read_all(client) == b"." * 10


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
                await until(lambda: bool(listener._service.upstreams))
                (one,) = listener._service.upstreams
                one._raw_socket().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1024)
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
            await until(lambda: bool(listener._service.upstreams))
            await listener.drain(timeout=0.2)
            with pytest.raises(anyio.BrokenResourceError):
                await client.receive()
            await cut.wait()
        assert listener.stats().shutdown_counts == {"shutdown": 1}
        assert not listener._service.upstreams


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
        await until(lambda: bool(listener._service.upstreams))
        tasks.start_soon(listener.close)
        await until(lambda: listener.state == "draining")
        await send_and_finish(client, b"lo")
        assert await read_all(client) == b"hello"
    assert listener.stats().shutdown_counts == {"normal": 1}


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
        assert not listener._service.upstreams


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
        with raw, anyio.move_on_after(0.5):
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


@pytest.mark.parametrize("moment", ["connected", "talking", "half closed"])
async def test_whenever_it_is_killed_no_descriptor_is_left(moment: str) -> None:
    before = 0
    with socket.create_server(("127.0.0.1", 0)) as server:
        for number in range(4):
            async with forwarding(ForwardHandler(server.getsockname())) as listener:
                with connect(listener) as client:
                    await until(lambda: bool(listener._service.upstreams))
                    with server.accept()[0] as accepted:
                        if moment == "talking":
                            client.send(b"hello")
                            assert await take(accepted) == b"hello"
                        if moment == "half closed":
                            client.shutdown(socket.SHUT_WR)
                            assert await take(accepted) == b""
                        await listener.kill()
                        assert not listener._service.upstreams
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
                assert not listener._service.upstreams
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
                assert not listener._service.upstreams


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
