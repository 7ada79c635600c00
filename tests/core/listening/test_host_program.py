"""The program around a listener: what it raises, cancels or leaves, and what then becomes of both."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import pytest
from tests.core.conftest import connect, echo, until
from tests.core.host_program import run_host_program

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


ENDS = {
    "coroutine": """
        async def handler(connection):
            await connection.receive()
            raise {error}
        """,
    "callback": """
        class Handler(CallbackHandler):
            def data_received(self, connection, data):
                raise {error}

        handler = Handler()
        """,
}
SENDS = """
    client = socket.create_connection(("127.0.0.1", listener.port))
    client.send(b"x")
    """


@pytest.mark.parametrize("loop", ["asyncio", "uvloop", "trio"])
@pytest.mark.parametrize("error", ["KeyboardInterrupt", "SystemExit"])
@pytest.mark.parametrize("grouped", [False, True], ids=["alone", "grouped"])
@pytest.mark.parametrize("style", ["coroutine", "callback"])
def test_what_is_meant_to_end_the_program_ends_it(loop: str, error: str, style: str, grouped: bool) -> None:
    raised = f"BaseExceptionGroup('two', [{error}(), BaseExceptionGroup('more', [{error}()])])" if grouped else error
    done = run_host_program(loop, handler=ENDS[style].format(error=raised), acts=SENDS, caught=error)
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


FAIL = """
def fail(here):
    if here == {where!r}:
        raise SystemExit(7)
"""
FAILS = {
    "coroutine": """
async def fail_soon():
    fail("a task group")

async def handler(connection):
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
""",
    "callback": """
class Handler(CallbackHandler):
    def connection_made(self, connection):
        fail("connection_made")

    def data_received(self, connection, data):
        fail("data_received")

    def eof_received(self, connection):
        fail("eof_received")
        connection.close_nowait()

    def connection_lost(self, connection, error):
        fail("connection_lost")

handler = Handler()
""",
}
COME_AND_GO = """
clients = [socket.create_connection(("127.0.0.1", listener.port)) for _ in range({count})]
for client in clients:
    client.send(b"x")
for client in clients:
    client.shutdown(socket.SHUT_WR)
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop", "trio"])
@pytest.mark.parametrize(("style", "where", "count"), PLACES)
def test_what_ends_the_program_ends_it_wherever_and_however_many_handlers_raise_it(
    loop: str, style: str, where: str, count: int
) -> None:
    """At once, by itself, and without an error in the log."""
    handler = FAIL.format(where=where) + FAILS[style]
    done = run_host_program(loop, handler=handler, acts=COME_AND_GO.format(count=count))
    assert (done.returncode, done.stdout, done.stderr) == (7, "", "")
