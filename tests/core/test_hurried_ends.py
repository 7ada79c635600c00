"""A drain in its course: hurried by a kill, and with bytes of clients that nobody read yet."""

from __future__ import annotations

import socket

import anyio
import pytest

from esockd_core import Connection, open_listener
from esockd_core.handlers import echo

pytestmark = pytest.mark.anyio


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
        async with open_listener("queued", "127.0.0.1:0", echo) as listener:
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
