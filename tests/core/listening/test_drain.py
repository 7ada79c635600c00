"""A drain in its course: who is told, who is still served, and what hurries or slows it."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from tests.core.conftest import Echo, connect, connect_stream, echo, rest, until
from tests.core.listening.conftest import say_goodbye
from tests.patience import PATIENCE_S
from tests.ports import steady_address

from esockd_core import CallbackHandler, Connection, InvalidOption, StreamConnection, handlers, open_listener

if TYPE_CHECKING:
    from esockd_core import Handler


pytestmark = pytest.mark.anyio


class Goodbye(CallbackHandler):
    def drain_requested(self, connection: StreamConnection) -> None:
        connection.send_nowait(b"goodbye")
        connection.close_nowait("shutdown")


@pytest.mark.parametrize("goodbye", [say_goodbye, Goodbye()], ids=["coroutine", "callback"])
@pytest.mark.parametrize("suspends", [False, True])
async def test_handlers_can_say_goodbye(goodbye: Handler, suspends: bool) -> None:
    async with open_listener("bye", "127.0.0.1:0", goodbye) as listener, anyio.create_task_group() as tasks:
        with connect(listener) as client:
            await until(lambda: listener.stats().accepted == 1)
            if suspends:
                await listener.suspend()
                await listener.resume()
            tasks.start_soon(listener.drain)
            assert await rest(client) == b"goodbye"
    assert listener.state == "closed"


async def test_a_draining_listener_takes_nobody_new_but_lets_handlers_finish(handler: Handler) -> None:
    class Patient(Echo):
        def drain_requested(self, connection: StreamConnection) -> None:
            pass

    patient = Patient() if isinstance(handler, CallbackHandler) else handler
    async with open_listener("echo", steady_address(), patient) as listener, anyio.create_task_group() as tasks:
        port = listener.port
        assert port is not None
        with connect(listener) as client:
            await until(lambda: listener.stats().accepted == 1)
            tasks.start_soon(listener.drain)
            await until(lambda: listener.connections[0].draining)
            assert (listener.state, listener.port, listener.addresses) == ("draining", None, ())
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), PATIENCE_S)
            client.send(b"x")
            client.shutdown(socket.SHUT_WR)
            assert await rest(client) == b"x"
    assert listener.stats().shutdown_counts == {"normal": 1}


async def test_who_waits_in_the_queue_is_served(handler: Handler) -> None:
    async with open_listener("echo", "127.0.0.1:0", handler) as listener, anyio.create_task_group() as tasks:
        await listener.suspend()
        clients = [connect(listener) for _ in range(100)]
        for client in clients:
            client.send(b"x")
            client.shutdown(socket.SHUT_WR)
        tasks.start_soon(listener.drain)
        for client in clients:
            assert await rest(client) in (b"x", b"")  # a callback handler closes when it is told
            client.close()
    stats = listener.stats()
    assert stats.accepted == sum(stats.shutdown_counts.values()) == 100


async def test_who_waits_in_the_queue_of_a_full_listener_is_refused_and_counted() -> None:
    async with open_listener(
        "echo", "127.0.0.1:0", echo, max_connections=1, when_full="backlog", shutdown_timeout=0, linger_timeout=0
    ) as listener:
        clients = [connect(listener) for _ in range(5)]
        await until(lambda: listener.stats().accepted == 1)
        with anyio.fail_after(30):
            await listener.close()
        for client in clients:
            client.close()
    assert (listener.stats().accepted, listener.stats().closed_max_limit) == (1, 4)


async def test_a_kill_hurries_a_drain_without_end() -> None:
    async with open_listener("echo", "127.0.0.1:0", anyio_sleeper) as listener, anyio.create_task_group() as tasks:
        with connect(listener):
            await until(lambda: listener.stats().accepted == 1)
            tasks.start_soon(listener.drain, None)
            await until(lambda: listener.state == "draining")
            with anyio.fail_after(30):
                await listener.kill()
    assert listener.stats().shutdown_counts == {"shutdown": 1}


async def anyio_sleeper(connection: StreamConnection) -> None:
    await anyio.sleep_forever()


async def test_a_paced_drain_tells_connections_one_after_the_other() -> None:
    told: list[int] = []

    async def note(connection: StreamConnection) -> None:
        await connection.wait_draining()
        told.append(connection.id)

    async with open_listener("echo", "127.0.0.1:0", note) as listener:
        clients = [connect(listener) for _ in range(6)]
        await until(lambda: listener.stats().accepted == 6)
        async with anyio.create_task_group() as tasks:

            async def drain() -> None:
                await listener.drain(rate=20)

            begin = anyio.current_time()
            tasks.start_soon(drain)
            await until(lambda: len(told) == 6)
            took_s = anyio.current_time() - begin
            for client in clients:
                client.close()
    assert len(set(told)) == 6
    assert took_s >= 5 / 20  # the first at once, and five pauses


@pytest.mark.parametrize("wrong", [{"timeout": "5"}, {"timeout": -1}, {"rate": 0}, {"rate": -3}])
async def test_a_drain_refuses_what_is_no_time_or_pace_and_goes_on_serving(wrong: dict[str, Any]) -> None:
    async with open_listener("test", "127.0.0.1:0", echo) as listener:
        with pytest.raises(InvalidOption) as caught:
            await listener.drain(**wrong)
        assert {caught.value.option: caught.value.value} == wrong
        assert listener.state == "running"


async def test_a_later_close_does_not_slow_a_kill_down() -> None:
    async def wait(_: StreamConnection) -> None:
        await anyio.sleep_forever()

    with anyio.fail_after(30):
        async with (
            open_listener("test", "127.0.0.1:0", wait, shutdown_timeout=None) as listener,
            await connect_stream(listener),
        ):
            await until(lambda: bool(listener.connections))
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(listener.kill)
                task_group.start_soon(listener.close)


async def test_a_kill_hurries_a_drain_that_tells_one_connection_an_hour() -> None:
    started, told, all_started = [], anyio.Event(), anyio.Event()

    async def stay(connection: Connection) -> None:
        started.append(connection)
        if len(started) == 3:
            all_started.set()
        await connection.wait_draining()
        told.set()
        await anyio.sleep_forever()

    with anyio.fail_after(20):
        async with open_listener("slow", "127.0.0.1:0", stay) as listener:
            assert listener.port is not None
            clients = [socket.create_connection(("127.0.0.1", listener.port)) for _ in range(3)]
            await all_started.wait()
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(listener.drain, None, 1 / 3600)
                await told.wait()
                for client in clients:  # or each would be lingered for
                    client.close()
                await listener.kill()
    assert listener.stats().shutdown_counts == {"shutdown": 3}


async def test_callbacks_answer_what_queued_clients_sent_before_the_close() -> None:
    clients = []
    with anyio.fail_after(20):
        async with open_listener("queued", "127.0.0.1:0", handlers.echo) as listener:
            assert listener.port is not None
            await listener.suspend()
            for _ in range(20):
                client = socket.create_connection(("127.0.0.1", listener.port))
                client.sendall(b"asked before")
                client.shutdown(socket.SHUT_WR)
                client.setblocking(False)
                clients.append(client)
            await listener.close()
    answers = []
    for client in clients:
        with client:
            answers.append(client.recv(100))
    assert answers == [b"asked before"] * 20
    assert listener.stats().shutdown_counts == {"normal": 20}
