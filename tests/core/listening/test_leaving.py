"""Leaving what runs listeners, by the end of the block, an error, a cancellation, a signal or from another task."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from tests.core.conftest import connect_stream, echo, receive_all, until
from tests.core.listening.conftest import say_goodbye
from tests.patience import PATIENCE_S

from esockd_core import Handler, Listener, Server, StreamConnection, open_listener

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from contextlib import AbstractAsyncContextManager

    from anyio.abc import SocketStream

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def one_of_a_server(name: str, address: str, handler: Handler, **options: Any) -> AsyncIterator[Listener]:
    async with Server() as server:
        yield await server.open(name, address, handler, **options)


@pytest.fixture(params=[open_listener, one_of_a_server], ids=["open_listener", "Server"])
def opened(request: pytest.FixtureRequest) -> Callable[..., AbstractAsyncContextManager[Listener]]:
    """Run the test with each kind of block."""
    kind: Callable[..., AbstractAsyncContextManager[Listener]] = request.param
    return kind


async def wait_for_ever(connection: StreamConnection) -> None:
    await connection.send(b"here")
    await anyio.sleep_forever()


async def served_client(listener: Listener) -> SocketStream:
    client = await connect_stream(listener)
    await until(lambda: listener.connections)
    return client


async def test_a_client_gets_its_goodbye_when_the_block_raises(
    opened: Callable[..., AbstractAsyncContextManager[Listener]],
) -> None:
    with anyio.fail_after(30), pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with opened("bye", "127.0.0.1:0", say_goodbye, linger_timeout=0) as listener:
            client = await served_client(listener)
            raise ZeroDivisionError
    async with client:
        assert await receive_all(client) == b"goodbye"
    assert listener.stats().shutdown_counts == {"normal": 1}


async def test_a_client_gets_its_goodbye_when_the_block_is_cancelled(
    opened: Callable[..., AbstractAsyncContextManager[Listener]],
) -> None:
    with anyio.fail_after(30):
        with anyio.CancelScope() as scope:
            async with opened("bye", "127.0.0.1:0", say_goodbye, linger_timeout=0) as listener:
                client = await served_client(listener)
                scope.cancel()
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        async with client:
            assert await receive_all(client) == b"goodbye"
    assert listener.stats().shutdown_counts == {"normal": 1}


async def test_a_cancelled_block_waits_for_a_handler_no_longer_than_shutdown_timeout(
    opened: Callable[..., AbstractAsyncContextManager[Listener]],
) -> None:
    with anyio.fail_after(30):
        with anyio.CancelScope() as scope:
            async with opened("stay", "127.0.0.1:0", wait_for_ever, shutdown_timeout=0.05) as listener:
                client = await connect_stream(listener)
                assert await client.receive() == b"here"
                scope.cancel()
                await anyio.sleep_forever()
        await client.aclose()
    assert listener.stats().shutdown_counts == {"shutdown": 1}


async def test_a_group_of_errors_that_the_block_raised_stays_a_group(
    opened: Callable[..., AbstractAsyncContextManager[Listener]],
) -> None:
    with pytest.raises(ExceptionGroup, match="mine") as raised:
        async with opened("echo", "127.0.0.1:0", echo):
            raise ExceptionGroup("mine", [ValueError()])
    assert isinstance(raised.value.exceptions[0], ValueError)


async def test_a_server_is_started_by_one_task_and_stopped_by_another() -> None:
    server = Server()
    clients = []

    async def start() -> None:
        await server.start()
        clients.append(await served_client(await server.open("bye", "127.0.0.1:0", say_goodbye, linger_timeout=0)))

    for hook in (start, server.stop):
        with anyio.fail_after(30):
            async with anyio.create_task_group() as hooks:
                hooks.start_soon(hook)
    async with clients[0]:
        assert await receive_all(clients[0]) == b"goodbye"
    assert server.listeners() == ()


async def test_a_server_that_was_stopped_may_be_started_again_and_one_that_runs_may_not() -> None:
    server = Server()
    await server.stop()  # nothing to stop
    for _ in range(2):
        await server.start()
        with pytest.raises(RuntimeError, match="running already"):
            await server.start()
        with pytest.raises(RuntimeError, match="running already"):
            async with server:
                pass
        await server.stop()
    with pytest.raises(RuntimeError, match="is not running"):
        await server.open("late", "127.0.0.1:0", echo)


PROGRAM = textwrap.dedent("""
    import sys, anyio
    from esockd_core import Server

    async def stay(connection):
        await connection.send(b"here")
        await connection.wait_draining()
        print("draining", flush=True)
        if "stubborn" in sys.argv:
            await anyio.sleep_forever()

    async def main():
        async with Server() as server:
            listener = await server.open("stay", "127.0.0.1:0", stay, shutdown_timeout=None)
            client = await anyio.connect_tcp("127.0.0.1", listener.port)
            await client.receive()
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(anyio.to_thread.run_sync, lambda: print("ready", flush=True))
                print((await server.serve_until_signal()).name, listener.state, listener.stats().shutdown_counts)

    backend = sys.argv[1]
    options = {"use_uvloop": True} if backend == "uvloop" else {}
    anyio.run(main, backend="trio" if backend == "trio" else "asyncio", backend_options=options)
""")


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop", "trio"])
def test_a_signal_ends_a_server_as_leaving_its_block_does(loop: str, number: str) -> None:
    with program(loop) as running:
        assert lines(running, 1) == ["ready"]
        running.send_signal(signal.Signals[number])
        output, errors = running.communicate(timeout=PATIENCE_S)
    assert output == f"draining\n{number} closed {{'normal': 1}}\n"
    assert (errors, running.returncode) == ("", 0)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop", "trio"])
def test_a_second_signal_does_not_wait_for_handlers(loop: str) -> None:
    with program(loop, "stubborn") as running:
        assert lines(running, 1) == ["ready"]
        running.terminate()
        assert lines(running, 1) == ["draining"]
        running.terminate()
        output, errors = running.communicate(timeout=PATIENCE_S)
    assert output == "SIGTERM closed {'shutdown': 1}\n"
    assert (errors, running.returncode) == ("", 0)


@contextmanager
def program(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", PROGRAM, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        try:
            yield running
        finally:
            running.kill()


def lines(running: subprocess.Popen[str], number: int) -> list[str]:
    assert running.stdout is not None
    return [running.stdout.readline().rstrip() for _ in range(number)]
