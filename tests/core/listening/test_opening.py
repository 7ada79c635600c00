"""Opening and embedding listeners, and running out of descriptors for real."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import textwrap

import anyio
import pytest
from tests.core.conftest import answer, connect, echo, until
from tests.patience import PATIENCE_S

from esockd_core import Listener, ListenerClosed, open_listener

pytestmark = pytest.mark.anyio


async def test_a_listener_runs_in_the_callers_task_group() -> None:
    """esockd's child_spec and t_open_close."""
    async with anyio.create_task_group() as tasks:
        listener: Listener = await tasks.start(Listener("echo", "127.0.0.1:0", echo).run)
        with connect(listener) as client:
            assert await answer(client) == b"hello"
        await listener.close()
    assert (listener.state, listener.port, listener.addresses) == ("closed", None, ())


async def test_port_0_is_one_port_for_every_socket() -> None:
    async with open_listener("echo", 0, echo) as listener:
        assert {address.rpartition(":")[2] for address in listener.addresses} == {str(listener.port)}
        assert len(listener.addresses) == 2


@pytest.mark.linux
async def test_a_socket_that_listens_already_keeps_its_owners_backlog() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=7) as given:
        async with open_listener("echo", given, echo) as listener:
            with connect(listener) as client:
                assert await answer(client) == b"hello"
            assert listener.stats().accept_queue_limit == 7


async def test_a_listener_runs_only_once() -> None:
    listener = Listener("echo", "127.0.0.1:0", echo)
    with pytest.raises(ListenerClosed, match="not open"):
        await listener.drain()
    async with anyio.create_task_group() as tasks:
        await tasks.start(listener.run)
        await listener.close()
    with pytest.raises(ListenerClosed, match="make a new one"):
        await listener.run()


async def test_stats_and_connections_follow_clients() -> None:
    """esockd's t_get_stats and t_get_current_connections."""
    async with open_listener("echo", "127.0.0.1:0", echo) as listener:
        with connect(listener) as first, connect(listener) as second:
            await until(lambda: listener.stats().accepted == 2)
            assert listener.stats().current_connections == 2
            peers = [connection.peername for connection in listener.connections]
            assert peers == [first.getsockname(), second.getsockname()]
        await until(lambda: listener.stats().current_connections == 0)
        assert listener.connections == ()
        assert listener.stats().shutdown_counts == {"normal": 2}


@pytest.mark.parametrize("loop", ["asyncio", "uvloop", "trio"])
@pytest.mark.parametrize(("style", "limit"), [("coroutine", 80), ("callback", 400)])
def test_out_of_descriptors_nobody_is_dropped_and_nothing_spins(loop: str, style: str, limit: int) -> None:
    """esockd's t_sys_limit, with the real limit: clients are in this process, descriptors run out in the other."""
    program = textwrap.dedent(f"""
        import json, resource, sys, time
        resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))
        import anyio
        from esockd_core import CallbackHandler, open_listener

        async def echo(connection):
            async for data in connection:
                await connection.send(data)

        class Echo(CallbackHandler):
            def data_received(self, connection, data):
                connection.send_nowait(data)

        async def main():
            held = []
            handler = echo if {style!r} == "coroutine" else Echo()
            ending = dict(shutdown_timeout=0, linger_timeout=0)
            async with open_listener("x", "127.0.0.1:0", handler, max_connections=None, **ending) as listener:
                print(listener.port, flush=True)
                listener._admission.max_connections = None  # the clamp that would prevent all this
                while not listener.stats().closed_sys_limit:
                    await anyio.sleep(0.02)
                before = time.process_time(), listener.stats().closed_sys_limit
                await anyio.sleep(1)
                spent = time.process_time() - before[0]
                print(json.dumps([spent, listener.stats().closed_sys_limit - before[1]]), flush=True)
                await anyio.to_thread.run_sync(sys.stdin.readline)
                await anyio.sleep(0.1)
                print(listener.stats().accepted, flush=True)

        anyio.run(main, backend={"trio" if loop == "trio" else "asyncio"!r},
                  backend_options={{"use_uvloop": True}} if {loop!r} == "uvloop" else {{}})
    """)
    with subprocess.Popen([sys.executable, "-c", program], stdin=-1, stdout=-1, stderr=-1, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            port = int(server.stdout.readline())
            clients = [socket.create_connection(("127.0.0.1", port), PATIENCE_S) for _ in range(limit + 20)]
            spent_s, failures = json.loads(server.stdout.readline())
            assert spent_s < 0.5
            assert 1 <= failures <= 11
            clients[0].sendall(b"still here")
            assert clients[0].recv(100) == b"still here"
            for client in clients[:60]:
                client.close()
            for client in clients[60:]:  # every one of them is served, whoever had to wait
                client.settimeout(PATIENCE_S)
                client.sendall(b"x")
                assert client.recv(100) == b"x"
            server.stdin.write("\n")
            server.stdin.flush()
            assert int(server.stdout.readline()) == len(clients)
            for client in clients:
                client.close()
        finally:
            server.kill()
