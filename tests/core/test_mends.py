"""What once went wrong in listeners, and does not any more."""

from __future__ import annotations

import socket
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.abc import SocketAttribute
from tests.core.conftest import echo, until

from esockd_core import (
    ConnectionEvent,
    InvalidOption,
    Listener,
    StreamConnection,
    TcpOptions,
    open_listener,
)

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.anyio


def port_of(listener: Listener) -> int:
    assert listener.port is not None
    return listener.port


connect = partial(anyio.connect_tcp, "127.0.0.1")


async def nodelay_of(handled: Callable[..., Any], nodelay: bool) -> int:
    async with (
        open_listener("test", "127.0.0.1:0", handled, tcp=TcpOptions(nodelay=nodelay)) as listener,
        await connect(port_of(listener)) as client,
    ):
        return int.from_bytes(await client.receive(1), "big")


@pytest.mark.parametrize("nodelay", [True, False])
async def test_nodelay_is_what_the_option_says_on_accepted_sockets(nodelay: bool) -> None:
    async def tell(connection: StreamConnection) -> None:
        raw = connection.extra(SocketAttribute.raw_socket)
        await connection.send(bytes([bool(raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))]))

    assert await nodelay_of(tell, nodelay) == nodelay


async def test_a_cancelled_suspend_leaves_a_listener_that_can_resume() -> None:
    with anyio.fail_after(10):
        async with open_listener("test", "127.0.0.1:0", echo) as listener:
            with anyio.CancelScope() as scope:
                scope.cancel()
                await listener.suspend()
            await listener.suspend()
            await listener.resume()
            async with await connect(port_of(listener)) as client:
                await client.send(b"x")
                assert await client.receive() == b"x"


async def test_an_error_beside_a_cancellation_stays_with_its_connection() -> None:
    """A handler whose own task group fails while it is cancelled raises a group of both."""

    async def fail_in_cleanup() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise ValueError("cleanup")

    async def handle(connection: StreamConnection) -> None:
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(fail_in_cleanup)
            await connection.send(b"ready")
            await anyio.sleep_forever()

    listener = Listener("test", "127.0.0.1:0", handle)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as host:
            await host.start(listener.run)
            async with await connect(port_of(listener)) as client:
                await client.receive()
                host.cancel_scope.cancel()
    assert listener.state == "closed"
    assert sum(listener.stats().shutdown_counts.values()) == 1


async def test_a_hook_may_abort_other_connections_without_harm() -> None:
    connections: list[StreamConnection] = []

    def abort_all(event: ConnectionEvent) -> None:
        if event.kind == "connection_stopped":
            for connection in connections:
                connection.abort("hook")

    async def never_reads(connection: StreamConnection) -> None:
        connections.append(connection)
        while True:
            await connection.send(bytes(1_000_000))

    with anyio.fail_after(20):
        async with open_listener("test", "127.0.0.1:0", never_reads, send_timeout=0.3, on_event=abort_all) as listener:
            clients = [await connect(port_of(listener)) for _ in range(4)]
            await until(lambda: sum(listener.stats().shutdown_counts.values()) == 4)
            listener.set_handler(echo)
            async with await connect(port_of(listener)) as client:
                await client.send(b"x")
                assert await client.receive() == b"x"
            for each in clients:
                await each.aclose()


@pytest.mark.parametrize("wrong", [{"timeout": "5"}, {"timeout": -1}, {"rate": 0}, {"rate": -3}])
async def test_a_drain_refuses_what_is_no_time_or_pace_and_goes_on_serving(wrong: dict[str, Any]) -> None:
    async with open_listener("test", "127.0.0.1:0", echo) as listener:
        with pytest.raises(InvalidOption):
            await listener.drain(**wrong)
        assert listener.state == "running"


async def test_a_later_close_does_not_slow_a_kill_down() -> None:
    async def wait(_: StreamConnection) -> None:
        await anyio.sleep_forever()

    with anyio.fail_after(10):
        async with (
            open_listener("test", "127.0.0.1:0", wait, shutdown_timeout=None) as listener,
            await connect(port_of(listener)),
        ):
            await until(lambda: bool(listener.connections))
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(listener.kill)
                task_group.start_soon(listener.close)


async def test_farewells_are_bounded_in_number() -> None:
    with anyio.fail_after(20):
        async with open_listener(
            "test", "127.0.0.1:0", echo, access_rules=["deny all"], refuse_with=b"no", linger_timeout=0.2
        ) as listener:
            clients = [await connect(port_of(listener)) for _ in range(80)]
            await until(lambda: listener.stats().closed_forbidden == 80)
            told = 0
            for client in clients:
                try:
                    told += await client.receive() == b"no"
                except (anyio.EndOfStream, anyio.BrokenResourceError):
                    continue
                finally:
                    await client.aclose()
            assert 0 < told <= 80


async def test_more_is_read_at_a_time_with_tune_buffer() -> None:
    tcp = TcpOptions(tune_buffer=True, receive_buffer_bytes=100_000)
    async with open_listener("test", "127.0.0.1:0", echo, tcp=tcp) as listener:
        assert listener._service.read_bytes >= 2 * 100_000  # the kernel doubles what is asked for (socket(7))
