"""The program around a listener: what it raises, cancels or leaves, and what then becomes of both."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import pytest
from tests.core.conftest import connect, echo, until

from esockd_core import Listener, open_listener

if TYPE_CHECKING:
    from esockd_core import Handler


pytestmark = pytest.mark.anyio


async def test_the_hosts_cancellation_ends_handlers_and_counts_them(handler: Handler) -> None:
    async with anyio.create_task_group() as host:
        listener: Listener = await host.start(Listener("echo", "127.0.0.1:0", handler).run)
        clients = [connect(listener) for _ in range(20)]
        await until(lambda: listener.stats().accepted == 20)
        host.cancel_scope.cancel()
    assert listener.state == "closed"
    assert sum(listener.stats().shutdown_counts.values()) == 20
    for client in clients:
        client.close()


@pytest.mark.parametrize("backend", ["asyncio", "uvloop", "trio"])
@pytest.mark.parametrize("error", ["KeyboardInterrupt", "SystemExit"])
@pytest.mark.parametrize("grouped", [False, True], ids=["alone", "grouped"])
@pytest.mark.parametrize("style", ["coroutine", "callback"])
def test_what_is_meant_to_end_the_program_ends_it(backend: str, error: str, style: str, grouped: bool) -> None:
    raised = f"BaseExceptionGroup('two', [{error}(), BaseExceptionGroup('more', [{error}()])])" if grouped else error
    program = textwrap.dedent(f"""
        import socket, sys, anyio
        from esockd_core import CallbackHandler, open_listener

        async def fail(connection):
            await connection.receive()
            raise {raised}

        class Fail(CallbackHandler):
            def data_received(self, connection, data):
                raise {raised}

        async def main():
            async with open_listener("x", "127.0.0.1:0", fail if {style!r} == "coroutine" else Fail()) as listener:
                client = socket.create_connection(("127.0.0.1", listener.port))
                client.send(b"x")
                await anyio.sleep(10)
                print("still here")

        try:
            anyio.run(main, backend={"trio" if backend == "trio" else "asyncio"!r},
                      backend_options={{"use_uvloop": True}} if {backend!r} == "uvloop" else {{}})
        except {error}:
            print("ended")
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout == "ended\n", done.stderr


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, ValueError])
async def test_what_the_block_of_a_listener_raises_arrives_as_it_is(kind: type[BaseException]) -> None:
    with pytest.raises(kind):
        async with open_listener("test", "127.0.0.1:0", echo):
            raise kind


CALLBACKS = ("connection_made", "data_received", "eof_received", "connection_lost")
PLACES = [
    *((style, where, 3) for style in ("coroutine", "callback") for where in CALLBACKS),
    ("coroutine", "a task group", 1),  # AnyIO warns of a second group, whose task never got its turn
]


@pytest.mark.parametrize("backend", ["asyncio", "uvloop", "trio"])
@pytest.mark.parametrize(("style", "where", "count"), PLACES)
def test_what_ends_the_program_ends_it_wherever_and_however_many_handlers_raise_it(
    backend: str, style: str, where: str, count: int
) -> None:
    """At once, by itself, and without an error in the log."""
    program = textwrap.dedent(f"""
        import socket, sys, anyio
        from esockd_core import CallbackHandler, open_listener

        def fail(here):
            if here == {where!r}:
                raise SystemExit(7)

        async def fail_soon():
            fail("a task group")

        async def handle(connection):
            fail("connection_made")
            try:
                await connection.receive()
                fail("data_received")
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(fail_soon)
                async for _ in connection:
                    pass
                fail("eof_received")
            finally:
                fail("connection_lost")

        class Handle(CallbackHandler):
            def connection_made(self, connection):
                fail("connection_made")

            def data_received(self, connection, data):
                fail("data_received")

            def eof_received(self, connection):
                fail("eof_received")
                connection.close_nowait()

            def connection_lost(self, connection, error):
                fail("connection_lost")

        async def main():
            handler = handle if {style!r} == "coroutine" else Handle()
            async with open_listener("x", "127.0.0.1:0", handler) as listener:
                clients = [socket.create_connection(("127.0.0.1", listener.port)) for _ in range({count})]
                for client in clients:
                    client.send(b"x")
                for client in clients:
                    client.shutdown(socket.SHUT_WR)
                await anyio.sleep(10)
                print("still here")

        anyio.run(main, backend={"trio" if backend == "trio" else "asyncio"!r},
                  backend_options={{"use_uvloop": True}} if {backend!r} == "uvloop" else {{}})
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (7, "", "")
