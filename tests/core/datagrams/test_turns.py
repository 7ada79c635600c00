"""Who has its turn when, while a port takes datagrams: a handler that waits has it at once, on asyncio and uvloop."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import pytest
from tests.core.conftest import ASYNCIO_ONLY, until
from tests.core.datagrams.udp import Client, assert_all_accounted_for, drops, echo
from tests.core.host_program import run_host_program
from tests.patience import PATIENCE_S

from esockd_core import DatagramConnection, Listener, open_listener
from esockd_core._connection.port import DatagramPort

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("way")]

ADDRESS = "udp://127.0.0.1:0"
ADDRESSES = pytest.mark.parametrize("address", [ADDRESS, "udp://*:0"], ids=["one address", "all"])


def take(listener: Listener) -> int:
    """Take what has come now, as when the event loop tells that the sockets are readable."""
    taken = 0
    for port in listener._site.ports:
        assert isinstance(port, DatagramPort)
        port.expect_many()
        taken += port.on_readable()
    return taken


async def in_a_callback(call: Callable[[], None]) -> None:
    """Call a function as the event loop calls those that wait for a socket: within no task."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    failed: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001
            failed.append(error)
        done.set()

    loop.call_soon(run)
    with anyio.fail_after(PATIENCE_S):
        await done.wait()
    if failed:
        raise failed[0]


@ASYNCIO_ONLY
@ADDRESSES
async def test_a_handler_that_waits_has_its_turn_before_the_next_datagram_is_taken(address: str) -> None:
    seen: list[bytes] = []

    async def note(connection: DatagramConnection) -> None:
        async for datagram in connection:
            seen.append(datagram)
            await connection.send(datagram)

    async with open_listener("udp", address, note) as listener:
        with Client(listener) as one, Client(listener) as other:
            assert [await each.ask(b"x") for each in (one, other)] == [b"x", b"x"]
            seen.clear()

            def turn() -> None:
                for number in range(3):
                    one.send(b"one %d" % number)
                    other.send(b"other %d" % number)
                assert take(listener) == 6
                assert seen == [b"one 0", b"other 0", b"one 1", b"other 1", b"one 2", b"other 2"]
                assert one.received() == [b"one 0", b"one 1", b"one 2"]

            await in_a_callback(turn)
            assert_all_accounted_for(listener.stats(), sent=8)


@ADDRESSES
async def test_within_the_turn_of_another_task_it_waits_for_its_own(address: str) -> None:
    async with open_listener("udp", address, echo) as listener:
        with Client(listener) as client:
            assert await client.ask(b"x") == b"x"
            client.send(b"one", b"two")
            assert take(listener) == 2
            assert client.received() == []
            assert [await client.receive() for _ in range(2)] == [b"one", b"two"]
        assert_all_accounted_for(listener.stats(), sent=3)


@ASYNCIO_ONLY
async def test_a_datagram_that_finds_its_handler_cancelled_is_kept() -> None:
    scopes: list[anyio.CancelScope] = []

    async def patient(connection: DatagramConnection) -> None:
        with anyio.CancelScope() as scope:
            scopes.append(scope)
            await connection.send(await connection.receive())
            await connection.receive()
        await connection.send(b"cancelled, and then " + await connection.receive())
        await connection.receive()

    async with open_listener("udp", ADDRESS, patient) as listener:
        with Client(listener) as client:
            assert await client.ask(b"x") == b"x"

            def turn() -> None:
                scopes[0].cancel()
                client.send(b"this")
                assert take(listener) == 1
                assert client.received() == []

            await in_a_callback(turn)
            assert await client.receive() == b"cancelled, and then this"


@ASYNCIO_ONLY
async def test_a_handler_in_its_turn_may_wait_for_something_else() -> None:
    async def slow(connection: DatagramConnection) -> None:
        async for datagram in connection:
            await anyio.lowlevel.checkpoint()
            await connection.send(datagram)

    async with open_listener("udp", ADDRESS, slow, udp={"queue_datagrams": 2}) as listener:
        with Client(listener) as client:
            assert await client.ask(b"x") == b"x"

            def turn() -> None:
                client.send(b"0", b"1", b"2", b"3")
                assert take(listener) == 4

            await in_a_callback(turn)
            assert [await client.receive() for _ in range(3)] == [b"0", b"1", b"2"]
            assert drops(listener) == {"queue_full": 1}
            assert_all_accounted_for(listener.stats(), sent=5)


@ASYNCIO_ONLY
async def test_a_task_of_the_handler_may_be_the_one_that_receives() -> None:
    async def delegates(connection: DatagramConnection) -> None:
        while True:
            datagram = await asyncio.wait_for(connection.receive(), PATIENCE_S)
            await connection.send(datagram)

    async with open_listener("udp", ADDRESS, delegates) as listener:
        with Client(listener) as client:
            for number in range(5):
                assert await client.ask(b"%d" % number) == b"%d" % number


@ASYNCIO_ONLY
async def test_a_handler_keeps_its_context_and_its_task_in_its_turn() -> None:
    variable = ContextVar[bytes]("variable", default=b"nobody's")
    tasks: set[object] = set()

    async def remember(connection: DatagramConnection) -> None:
        async for datagram in connection:
            tasks.add(asyncio.current_task())
            await connection.send(variable.get())
            variable.set(datagram)

    async with open_listener("udp", ADDRESS, remember) as listener:
        with Client(listener) as one, Client(listener) as other:
            assert [await one.ask(each) for each in (b"a", b"b", b"c")] == [b"nobody's", b"a", b"b"]
            assert [await other.ask(each) for each in (b"d", b"e")] == [b"nobody's", b"d"]
    assert len(tasks) == 2
    assert None not in tasks


@pytest.mark.parametrize("change", ["close", "reopen", "suspend"])
async def test_a_handler_may_change_its_listener_in_its_turn(change: str) -> None:
    done: list[str] = []

    async def handle(connection: DatagramConnection) -> None:
        async for datagram in connection:
            if datagram == b"change":
                done.append(change)
                if change == "close":
                    changing.start_soon(listener.close)
                else:
                    await getattr(listener, change)()
                done.append("done")
            await connection.send(datagram)

    async with anyio.create_task_group() as changing, open_listener("udp", ADDRESS, handle) as listener:
        with Client(listener) as client, Client(listener) as other:
            assert [await each.ask(b"x") for each in (client, other)] == [b"x", b"x"]
            other.send(b"before")
            client.send(b"change", b"after")
            other.send(b"after")
            await until(lambda: done == [change, "done"])
            if change != "close":
                assert [await other.receive() for _ in range(2)] == [b"before", b"after"]
                assert [await client.receive() for _ in range(2)] == [b"change", b"after"]
        assert listener.failure is None


ENDS = {
    "coroutine": """
        async def handler(connection):
            await connection.receive()
            await connection.send(b"waits")
            await connection.receive()
            raise {error}
        """,
    "callback": """
        class Handler(CallbackHandler):
            def data_received(self, connection, data):
                connection.send_nowait(b"waits")
                if data == b"end":
                    raise {error}

        handler = Handler()
        """,
}
ASKS_TWICE = """
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.setblocking(False)
    client.connect(("127.0.0.1", listener.port))
    client.send(b"x")
    await anyio.wait_readable(client)
    client.send(b"end")
    """


@pytest.mark.parametrize("loop", ["asyncio", "uvloop", "trio"])
@pytest.mark.parametrize("error", ["KeyboardInterrupt", "SystemExit"])
@pytest.mark.parametrize("style", ["coroutine", "callback"])
def test_what_is_meant_to_end_the_program_ends_it_from_a_datagram(loop: str, error: str, style: str) -> None:
    handler = ENDS[style].format(error=error)
    done = run_host_program(loop, address=ADDRESS, handler=handler, acts=ASKS_TWICE, caught=error)
    assert (done.stdout, done.stderr) == ("ended\n", "")
