"""The load of one process against servers that misbehave, and against servers whose delays are known."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from tests.ports import steady_port

from esockd_cli.bench.engine import Load
from esockd_cli.bench.plan import Plan
from esockd_cli.bench.schedule import NS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

pytestmark = pytest.mark.anyio

SIZE = 64


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """The load runs on asyncio, with uvloop and without."""
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


@asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[int]:
    """A server of streams, by its port."""
    tasks: set[asyncio.Task[Any]] = set()

    async def watched(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(task) if (task := asyncio.current_task()) else None
        try:
            await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(watched, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def plan(port: int, **changes: Any) -> Load:
    """A load that is to be made."""
    given: dict[str, Any] = {
        "transport": "tcp", "host": "127.0.0.1", "port": port, "server_name": "localhost", "mode": "echo",
        "connections": 4, "size": SIZE, "rate": None, "requests": 40, "duration": 20.0, "timeout": 20.0,
    }  # fmt: skip
    return Load(Plan(**given | changes))


async def load(port: int, *, is_opened: bool | None = True, **changes: Any) -> Load:
    """Make a load, and return it with what it has counted."""
    return await run(plan(port, **changes), is_opened=is_opened)


async def run(made: Load, *, is_opened: bool | None = True) -> Load:
    """Make a load from its beginning to its end."""
    try:
        await made.open_all()
        assert is_opened in (None, made.tally.connected > 0)
        await made.run()
    finally:
        await made.close()
    return made


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)


async def test_every_message_comes_back_and_is_counted() -> None:
    async with serving(echo) as port:
        for size in (1, 7, 8, 64, 300_000):
            tally = (await load(port, size=size)).tally
            assert (tally.completed, tally.errors.total(), tally.latencies.count) == (40, 0, 40)


async def test_an_answer_in_pieces_is_one_answer() -> None:
    async def dribble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            for byte in data:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0)

    async with serving(dribble) as port:
        tally = (await load(port, size=16)).tally
        assert (tally.completed, tally.errors.total()) == (40, 0)


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(65_536):
        pass


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readexactly(SIZE)
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readexactly(SIZE)


async def change(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    data = await reader.readexactly(SIZE)
    writer.write(data[:-1] + bytes([data[-1] ^ 1]))
    await reader.read()


async def repeat_the_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    first = await reader.readexactly(SIZE)
    while True:
        writer.write(first)
        await reader.readexactly(SIZE)


async def answer_too_much(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(await reader.readexactly(SIZE) + b"more")
    await reader.read()


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 ready\r\n")
    await reader.read()


async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(bytes(65_536))
        await writer.drain()


@pytest.mark.parametrize(
    ("serve", "kinds"),
    [
        (silent, {"timeout"}),
        (reset, {"reset"}),
        (close, {"closed"}),
        (change, {"wrong"}),
        (repeat_the_first, {"wrong"}),
        (answer_too_much, {"too_much", "wrong"}),  # as the kernel cuts it
        (greet, {"too_much", "wrong"}),
        (pour, {"too_much", "wrong"}),
    ],
)
@pytest.mark.parametrize("rate", [None, 200.0])
async def test_what_goes_wrong_is_counted_by_its_kind_and_ends_in_time(
    serve: Serve, kinds: set[str], rate: float | None
) -> None:
    async with serving(serve) as port:
        timeout = 0.5 if serve is silent else 60.0  # what is to be seen has to come first, on a busy machine too
        tally = (await load(port, is_opened=None, requests=12, duration=60.0, timeout=timeout, rate=rate)).tally
        seen = {*tally.errors} - {"unsent"}
        assert seen & kinds, tally.as_dict()
        assert seen <= kinds | {"connect_timeout", "timeout", "reset"}


async def test_a_server_that_is_not_there_refuses_and_ends_in_time() -> None:
    tally = (await load(steady_port(), is_opened=False, requests=None, duration=0.3)).tally
    assert {*tally.errors} == {"refused"}
    assert tally.completed == 0


async def test_messages_that_found_no_free_connection_are_told_as_unsent() -> None:
    async with serving(silent) as port:
        tally = (await load(port, requests=None, rate=100.0, duration=1.0, timeout=1.5, connections=2)).tally
        assert tally.errors["unsent"] >= 90  # in 2.5 s, two connections lose a few each
        assert tally.errors["unsent"] + tally.errors["timeout"] == 100


async def test_a_connection_for_each_message() -> None:
    served = 0

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        served += 1
        await echo(reader, writer)

    async with serving(count) as port:
        for rate in (None, 400.0):
            tally = (await load(port, mode="connect", is_opened=False, rate=rate)).tally
            assert (tally.completed, tally.errors.total(), tally.connects.count) == (40, 0, 40)
        assert (await load(port, mode="connect", is_opened=False, size=0)).tally.completed == 40
        assert served <= 120


async def test_connections_that_are_held_and_some_that_the_server_ends() -> None:
    async def end_some(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = next(numbers)
        if number % 4:
            await reader.read()
        else:
            await asyncio.sleep(0.1)

    numbers = iter(range(1000))
    async with serving(end_some) as port:
        made = plan(port, mode="idle", connections=40, requests=None, duration=60.0, rate=1000.0)
        running = asyncio.create_task(run(made))
        while made.tally.errors.total() < 10 or made.tally.completed < 40:  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(0.05)
        made.stopped.set()
        await running
        tally = made.tally
        assert (tally.completed, dict(tally.errors)) == (40, {"closed": 10})
        assert tally.connects.count == 40


async def test_datagrams_that_are_lost_are_counted_and_late_ones_are_not_wrong() -> None:
    class Lossy(asyncio.DatagramProtocol):
        """Loses the third datagram, and answers the sixth together with the next one."""

        def __init__(self) -> None:
            self.seen = 0
            self.held: bytes | None = None

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport: Any = transport

        def datagram_received(self, data: bytes, addr: Any) -> None:
            self.seen += 1
            if self.seen == 3:
                return
            if self.seen == 6:
                self.held = data
                return
            if self.held is not None:
                self.transport.sendto(self.held, addr)
                self.held = None
            self.transport.sendto(data, addr)

    transport, lossy = await asyncio.get_running_loop().create_datagram_endpoint(Lossy, local_addr=("127.0.0.1", 0))
    try:
        port = transport.get_extra_info("sockname")[1]
        tally = (await load(port, transport="udp", connections=1, requests=20, timeout=3.0)).tally
        assert dict(tally.errors) == {"timeout": 2}
        assert tally.completed == 18
        assert lossy.held is None
    finally:
        transport.close()


class Delays:
    """A server that answers every tenth message after a while, and knows how long it has taken for each."""

    def __init__(self, while_s: float) -> None:
        self.while_s = while_s
        self.taken_ns: list[int] = []
        self._seen = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(SIZE):
            came = time.perf_counter_ns()
            self._seen += 1
            if self._seen % 10 == 0:
                await asyncio.sleep(self.while_s)
            self.taken_ns.append(time.perf_counter_ns() - came)
            writer.write(data)

    def percentile(self, percent: float) -> int:
        """What the server itself has measured."""
        return sorted(self.taken_ns)[max(1, -int(-len(self.taken_ns) * percent // 100)) - 1]


@pytest.mark.parametrize("rate", [None, 60.0])
async def test_percentiles_are_those_of_a_server_whose_delays_are_known(rate: float | None) -> None:
    delays = Delays(1.5)
    async with serving(delays.serve) as port:
        tally = (await load(port, connections=30, requests=100, rate=rate)).tally
    assert (tally.completed, tally.errors.total()) == (100, 0)
    for percent in (50.0, 90.0, 95.0, 99.0):
        assert tally.latencies.percentile(percent) >= 0.995 * delays.percentile(percent)
    assert tally.latencies.percentile(50) < 1.5 * NS <= tally.latencies.percentile(95) * 1.005
    assert tally.latencies.largest >= max(delays.taken_ns)


async def test_a_server_that_stands_still_has_it_against_it_for_every_message_that_was_due_meanwhile() -> None:
    rate, total, pause_s, seen = 200.0, 900, 2.0, 0
    stood_still: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        while data := await reader.read(SIZE):
            seen += 1
            if seen == 100:
                paused.clear()
                stood_still.append(time.perf_counter_ns())
                asyncio.get_running_loop().call_later(pause_s, end)
            await paused.wait()
            writer.write(data)

    def end() -> None:
        stood_still.append(time.perf_counter_ns())
        paused.set()

    paused = asyncio.Event()
    paused.set()
    async with serving(serve) as port:
        tally = (await load(port, connections=5, requests=total, rate=rate)).tally
    assert (tally.completed, tally.errors.total()) == (total, 0)
    # Those due in the pause, 400 of 800, waited from the whole of it down to nothing. A machine that is slow makes
    # latencies longer, and never shorter.
    pause = stood_still[1] - stood_still[0]
    due_meanwhile = rate * pause / NS
    for percent in (99.0, 95.0, 90.0, 80.0, 70.0):
        longer = total * (100 - percent) / 100 + 10  # a few were due just before, or on a loop that was late
        assert tally.latencies.percentile(percent) >= 0.99 * pause * (1 - longer / due_meanwhile)
    assert tally.latencies.percentile(25) < pause / 2  # before it and after it, answers were quick
