"""How a listener ends: who is told, who is waited for, and what is done about those who do not end."""

from __future__ import annotations

import socket
import subprocess
import sys
import textwrap
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Self

import anyio
import pytest
from anyio.lowlevel import checkpoint
from tests.core.conftest import Echo, connect, echo, rest, until

from esockd_core import CallbackHandler, ConnectionEvent, Listener, Server, StreamConnection, open_listener

if TYPE_CHECKING:
    from esockd_core import Handler

pytestmark = pytest.mark.anyio


async def say_goodbye(connection: StreamConnection) -> None:
    await connection.wait_draining()
    await connection.send(b"goodbye")


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
    async with open_listener("echo", "127.0.0.1:0", patient) as listener, anyio.create_task_group() as tasks:
        port = listener.port
        assert port is not None
        with connect(listener) as client:
            await until(lambda: listener.stats().accepted == 1)
            tasks.start_soon(listener.drain)
            await until(lambda: listener.connections[0].draining)
            assert (listener.state, listener.port, listener.addresses) == ("draining", None, ())
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), 5)
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
        with anyio.fail_after(5):
            await listener.close()
        for client in clients:
            client.close()
    assert (listener.stats().accepted, listener.stats().closed_max_limit) == (1, 4)


async def test_a_handler_that_goes_on_is_cancelled_after_the_timeout() -> None:
    cancelled = anyio.Event()

    async def deaf(connection: StreamConnection) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()

    async with open_listener("deaf", "127.0.0.1:0", deaf) as listener:
        with connect(listener) as client:
            await until(lambda: listener.stats().accepted == 1)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(listener.drain, 0.2)
                await until(lambda: listener.connections[0].draining)
                assert not cancelled.is_set()
                assert await rest(client) == b""
                client.close()
    assert cancelled.is_set()
    assert listener.stats().shutdown_counts == {"shutdown": 1}


async def test_a_kill_hurries_a_drain_without_end() -> None:
    async with open_listener("echo", "127.0.0.1:0", anyio_sleeper) as listener, anyio.create_task_group() as tasks:
        with connect(listener):
            await until(lambda: listener.stats().accepted == 1)
            tasks.start_soon(listener.drain, None)
            await until(lambda: listener.state == "draining")
            with anyio.fail_after(5):
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


async def test_swallowing_cancellation_is_no_way_to_stay(anyio_backend_name: str) -> None:
    async def stubborn(connection: StreamConnection) -> None:
        for _ in range(3):
            try:
                await anyio.sleep_forever()
            except anyio.get_cancelled_exc_class():
                continue

    with EventCount() as counts:
        async with open_listener(
            "stubborn", "127.0.0.1:0", stubborn, shutdown_timeout=0, linger_timeout=0, on_event=counts.note
        ) as listener:
            with connect(listener):
                await until(lambda: listener.stats().accepted == 1)
                with anyio.fail_after(5):
                    await listener.close()
    assert listener.stats().shutdown_counts == {"shutdown": 1}


class EventCount:
    """Checks that each connection starts once and stops once."""

    def __enter__(self) -> Self:
        self.events: Counter[tuple[str, int]] = Counter()
        self.reasons: list[str | None] = []
        return self

    def note(self, event: ConnectionEvent) -> None:
        self.events[event.kind, event.connection.id] += 1
        if event.kind == "connection_stopped":
            self.reasons.append(event.reason)

    def __exit__(self, *exc_info: object) -> None:
        assert set(self.events.values()) <= {1}
        kinds = Counter(kind for kind, _ in self.events)
        assert kinds["connection_started"] == kinds["connection_stopped"] > 0


async def test_each_connection_has_one_start_and_one_stop_however_it_ends(handler: Handler) -> None:
    with EventCount() as counts:
        async with open_listener(
            "echo",
            "127.0.0.1:0",
            handler,
            shutdown_timeout=0,
            linger_timeout=0,
            max_connections=3,
            on_event=counts.note,
        ) as listener:
            closed, aborted, left, refused = (connect(listener) for _ in range(4))
            await until(lambda: listener.stats().closed_max_limit == 1)
            closed.close()
            listener.connections[1].abort()
            await until(lambda: listener.stats().current_connections == 1)
        for client in (aborted, left, refused):
            client.close()
    assert sum(listener.stats().shutdown_counts.values()) == 3
    assert len(counts.reasons) == 3


async def test_a_stuck_handler_is_logged_with_its_stack_and_counted_and_holds_nobody(
    anyio_backend_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    release = anyio.Event()

    async def never_ending(connection: StreamConnection) -> None:
        with anyio.CancelScope(shield=True):
            while not release.is_set():
                try:
                    await release.wait()
                except anyio.get_cancelled_exc_class():  # asyncio's own cancellation minds no shield
                    continue

    if anyio_backend_name == "trio":  # a nursery waits for its tasks, whatever they do: let it go once it is counted

        def note(event: ConnectionEvent) -> None:
            if event.kind == "connection_stopped":
                release.set()
    else:

        def note(event: ConnectionEvent) -> None:
            pass

    async with open_listener(
        "stuck", "127.0.0.1:0", never_ending, shutdown_timeout=0, linger_timeout=0, on_event=note
    ) as listener:
        with connect(listener):
            await until(lambda: listener.stats().accepted == 1)
            with anyio.fail_after(10):
                await listener.close()
    assert listener.stats().shutdown_counts == {"stuck": 1}
    assert "never_ending" in caplog.text
    release.set()
    for _ in range(3):
        await checkpoint()
    assert listener.stats().shutdown_counts == {"stuck": 1}


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


def has_accepted(listener: Listener, number: int) -> bool:
    return listener.stats().accepted == number


async def test_thousands_of_connections_drain_without_stalling_the_loop(handler: Handler) -> None:
    stall_s = 0.0

    async def watch() -> None:
        nonlocal stall_s
        while True:
            before = anyio.current_time()
            await anyio.sleep(0.01)
            stall_s = max(stall_s, anyio.current_time() - before)

    number = 3_000
    async with open_listener(
        "echo", "127.0.0.1:0", handler, max_connections=number, shutdown_timeout=0, linger_timeout=0
    ) as listener:
        clients: list[socket.socket] = []
        for total in range(500, number + 1, 500):
            clients += [connect(listener) for _ in range(500)]
            await until(partial(has_accepted, listener, total))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            async with anyio.create_task_group() as draining:
                draining.start_soon(listener.close)
                await until(lambda: listener.state == "draining")
                for position, client in enumerate(clients):
                    client.close()
                    if position % 100 == 0:
                        await checkpoint()
            tasks.cancel_scope.cancel()
    assert sum(listener.stats().shutdown_counts.values()) == number
    assert stall_s < 1.0  # generous: what is meant is seconds


@pytest.mark.parametrize("backend", ["asyncio", "uvloop", "trio"])
@pytest.mark.parametrize("error", ["KeyboardInterrupt", "SystemExit"])
@pytest.mark.parametrize("style", ["coroutine", "callback"])
def test_what_is_meant_to_end_the_program_ends_it(backend: str, error: str, style: str) -> None:
    program = textwrap.dedent(f"""
        import socket, sys, anyio
        from esockd_core import CallbackHandler, open_listener

        async def fail(connection):
            await connection.receive()
            raise {error}

        class Fail(CallbackHandler):
            def data_received(self, connection, data):
                raise {error}

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
        except BaseExceptionGroup as group:
            print("ended" if group.subgroup({error}) else group)
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout == "ended\n", done.stderr


async def test_leaving_the_block_of_a_server_closes_every_listener() -> None:
    async with Server() as server:
        first = await server.open("bye", "127.0.0.1:0", say_goodbye, linger_timeout=0)
        second = await server.open("echo", "127.0.0.1:0", echo, shutdown_timeout=0, linger_timeout=0)
        client = connect(first)
        await until(lambda: first.stats().accepted == 1)
    with client:
        assert await rest(client) == b"goodbye"
    assert (first.state, second.state) == ("closed", "closed")
