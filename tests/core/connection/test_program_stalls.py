"""A program that stalls: what it did not read in time was sent in time."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from tests.core.conftest import reasons, until
from tests.core.connection.strangers import secure, serving
from tests.core.tls_clients import client_context, dial, run

from esockd_core import CallbackHandler, StreamConnection

if TYPE_CHECKING:
    import socket

    from esockd_core import Handler, TlsOptions

pytestmark = pytest.mark.anyio

STALL_S = 1.2
IDLE_TIMEOUT_S = 0.5


def chat(client: socket.socket, enough: threading.Event) -> bool:
    """Ask every now and then, without waiting for the answer; whether it was answered to the end."""
    asked = answered = 0
    with client:
        while not enough.wait(0.05):
            client.sendall(b"x")
            asked += 1
        while answered < asked:
            received = client.recv(65_536)
            if not received:
                return False
            answered += len(received)
    return True


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])
async def test_clients_that_spoke_all_the_time_are_not_idle_after_a_stall(
    handler: Handler, tls: TlsOptions, *, encrypted: bool
) -> None:
    enough = threading.Event()
    options = {"tls": tls} if encrypted else {}
    answered: list[bool] = []

    context = client_context()

    def join() -> socket.socket:
        return context.wrap_socket(dial(listener), server_hostname="localhost") if encrypted else dial(listener)

    async def client() -> None:
        answered.append(await run(lambda: chat(join(), enough)))

    async with serving(handler, idle_timeout=IDLE_TIMEOUT_S, **options) as listener, anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(client)
        await until(lambda: len(listener.connections) == 10)
        for _ in range(2):
            time.sleep(STALL_S)  # noqa: ASYNC251
            await anyio.sleep(0.2)
        enough.set()
    assert answered == [True] * 10


class Ticker:
    """Sends every now and then, and hears nothing."""

    def __init__(self) -> None:
        self.connections: list[StreamConnection] = []

    async def serve(self, connection: StreamConnection) -> None:
        self.connections.append(connection)
        async for _ in connection:
            pass

    async def tick(self) -> None:
        while True:
            await anyio.sleep(0.1)
            for connection in self.connections:
                connection.send_nowait(b"tick")


async def test_clients_that_only_listen_are_not_idle_because_the_program_stalled() -> None:
    ticker = Ticker()
    async with serving(ticker.serve, idle_timeout=IDLE_TIMEOUT_S) as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(ticker.tick)
        clients = [await run(lambda: dial(listener)) for _ in range(4)]
        await until(lambda: len(ticker.connections) == 4)
        for _ in range(2):
            await anyio.sleep(0.2)
            time.sleep(STALL_S)  # noqa: ASYNC251
        await anyio.sleep(0.2)
        assert len(listener.connections) == 4
        tasks.cancel_scope.cancel()
        for client in clients:
            client.close()


def answer_all(client: socket.socket) -> int:
    """Answer whatever comes, until the end; how many bytes came."""
    came = 0
    with client:
        while received := client.recv(65_536):
            came += len(received)
            client.sendall(received)
    return came


async def test_clients_that_only_answer_are_not_silent_because_the_program_stalled() -> None:
    ticker = Ticker()
    async with (
        serving(ticker.serve, receive_timeout=2 * IDLE_TIMEOUT_S, shutdown_timeout=0) as listener,
        anyio.create_task_group() as tasks,
    ):
        for _ in range(4):
            tasks.start_soon(run, lambda: answer_all(dial(listener)))
        await until(lambda: len(ticker.connections) == 4)
        async with anyio.create_task_group() as ticking:
            ticking.start_soon(ticker.tick)
            for _ in range(2):
                await anyio.sleep(0.2)
                time.sleep(STALL_S)  # noqa: ASYNC251
            await anyio.sleep(0.2)
            ticking.cancel_scope.cancel()
        assert len(listener.connections) == 4
        for connection in ticker.connections:
            connection.close_nowait()


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("style", ["coroutine", "callback"])
async def test_a_client_is_not_idle_while_its_handler_leaves_unread_what_it_sent(
    tls: TlsOptions, style: str, *, encrypted: bool
) -> None:
    read = anyio.Event()

    async def busy(connection: StreamConnection) -> None:
        await connection.receive(1)
        await read.wait()
        await connection.send(await connection.receive())

    class Busy(CallbackHandler):
        connection: StreamConnection
        received = b""

        def data_received(self, connection: StreamConnection, data: bytes) -> None:
            self.connection = connection
            self.received += data
            if len(self.received) == 1:
                connection.pause_reading()
            else:
                connection.send_nowait(self.received[1:])

    handler: Any = busy if style == "coroutine" else Busy()
    options = {"tls": tls} if encrypted else {}

    def ask() -> bytes:
        with secure(dial(listener)) if encrypted else dial(listener) as client:
            client.sendall(b"1")
            time.sleep(0.2)
            client.sendall(b"2")
            return client.recv(10)

    async with serving(handler, idle_timeout=IDLE_TIMEOUT_S, **options) as listener, anyio.create_task_group() as tasks:

        async def go_on() -> None:
            await until(lambda: listener.connections)
            await anyio.sleep(3 * IDLE_TIMEOUT_S)
            read.set()
            if isinstance(handler, Busy):
                handler.connection.resume_reading()

        tasks.start_soon(go_on)
        assert await run(ask) == b"2"
        assert "idle_timeout" not in await reasons(listener)
