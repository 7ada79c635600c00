"""A connection that ended is freed at once: a cycle would keep it, and OpenSSL's 20 KB, for the garbage collector."""

from __future__ import annotations

import gc
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import anyio
import pytest
from tests.core.conftest import HEADER, reasons, until
from tests.core.connection.strangers import hello, rest, secure, serving
from tests.core.datagrams.udp import Client
from tests.core.tls_clients import dial, run

from esockd_core import DatagramConnection, ProxyOptions, open_listener
from esockd_core._connection.datagram import DatagramBase
from esockd_core._connection.stream import StreamBase
from esockd_core.handlers import ForwardHandler

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from esockd_core import Handler, Listener, StreamConnection, TlsOptions
    from esockd_core._connection.driven import DrivenConnection

pytestmark = pytest.mark.anyio

COUNT = 5


def alive() -> int:
    return sum(issubclass(type(each), StreamBase) for each in gc.get_objects())


def saying(what: bytes) -> Callable[[Listener], None]:
    def talk(listener: Listener) -> None:
        with dial(listener, what) as client, suppress(OSError):
            client.shutdown(1)
            rest(client)

    return talk


def listening(listener: Listener) -> None:
    with dial(listener) as client:
        rest(client)


def with_tls(listener: Listener) -> None:
    with secure(dial(listener)) as client:
        client.sendall(b"x")
        client.recv(1)
        client.unwrap().close()


async def left_by(handler: Handler, talk: Callable[[Listener], None], options: dict[str, Any], *rehearsed: str) -> int:
    async with serving(handler, **options) as listener:
        if rehearsed:
            await listener.rehearse(*rehearsed, max_connections_per_source=3)
        gc.collect()
        gc.disable()
        try:
            before = alive()
            for _ in range(COUNT):
                await run(lambda: talk(listener))
            await reasons(listener, COUNT)
            await anyio.sleep(0.1)
            return alive() - before
        finally:
            gc.enable()


@pytest.mark.parametrize(
    "how", ["plain", "tls", "handshake failed", "half a handshake", "no header", "half a header", "denied"]
)
async def test_connections_are_freed_whatever_their_end(handler: Handler, tls: TlsOptions, how: str) -> None:
    cases: dict[str, tuple[Callable[[Listener], None], dict[str, Any]]] = {
        "plain": (saying(b"x"), {}),
        "tls": (with_tls, {"tls": tls}),
        "handshake failed": (saying(b"GET / HTTP/1.0\r\n\r\n"), {"tls": tls}),
        "half a handshake": (saying(hello()), {"tls": tls}),
        "no header": (saying(b"GET / HTTP/1.0\r\n\r\n"), {"proxy_protocol": True}),
        "half a header": (saying(HEADER[:20]), {"proxy_protocol": True}),
        "denied": (saying(HEADER), {"proxy_protocol": True, "access_rules": ["deny 192.0.2.7"]}),
    }
    talk, options = cases[how]
    assert await left_by(handler, talk, options) <= 1  # trio remembers the task that ended last


async def test_connections_are_freed_whose_handlers_set_a_receive_timeout() -> None:
    async def patient(connection: StreamConnection) -> None:
        connection.receive_timeout = 600
        async for data in connection:
            await connection.send(data)

    assert await left_by(patient, saying(b"x"), {}) <= 1


async def test_connections_are_freed_that_the_sweeper_has_seen_wait_for_their_peers() -> None:
    seen = 0

    async def wait_for_the_sweeper(connection: StreamConnection) -> None:
        nonlocal seen
        ours = cast("DrivenConnection", connection)
        await until(lambda: ours in ours.site.watch.receiving)
        seen += 1

    assert await left_by(wait_for_the_sweeper, listening, {"receive_timeout": 4}) <= 1
    assert seen == COUNT


@pytest.mark.parametrize("rule", ["deny 127.0.0.1", "deny 192.0.2.7", "deny 203.0.113.1"])
async def test_connections_are_freed_while_a_change_is_rehearsed(handler: Handler, rule: str) -> None:
    headers = {"proxy_protocol": ProxyOptions(access_rules_on="both"), "access_rules": ["deny 192.0.2.0/24"]}
    assert await left_by(handler, saying(HEADER), headers, "allow 192.0.2.0/28", rule) <= 1
    assert await left_by(handler, saying(b"x"), {}, "allow 192.0.2.0/28", rule) <= 1


@pytest.fixture
async def upstream_port(handler: Handler) -> AsyncIterator[int | None]:
    async with serving(handler) as listener:
        yield listener.port


async def test_forwarded_connections_are_freed(upstream_port: int) -> None:
    assert await left_by(ForwardHandler(f"127.0.0.1:{upstream_port}"), saying(b"x"), {}) <= 2


async def test_connections_whose_upstream_or_handler_failed_are_freed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "esockd_core")  # a record that is kept keeps its error

    async def fail(connection: StreamConnection) -> None:
        raise ValueError

    async def fail_once_resumed(connection: StreamConnection) -> None:
        await connection.receive()
        raise ValueError

    assert await left_by(ForwardHandler("127.0.0.1:1"), saying(b"x"), {}) <= 1
    assert await left_by(fail, saying(b"x"), {}) <= 1
    assert await left_by(fail_once_resumed, saying(b"x"), {}) <= 1


async def answer(connection: DatagramConnection) -> None:
    await connection.send(await connection.receive())


async def answer_and_return(connection: DatagramConnection) -> None:
    await answer(connection)
    await answer(connection)


async def answer_and_fail(connection: DatagramConnection) -> None:
    await answer_and_return(connection)
    raise ValueError


async def answer_and_return_the_connection(connection: DatagramConnection) -> Any:
    await answer_and_return(connection)
    return connection


async def answer_from_a_task_that_fails(connection: DatagramConnection) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(answer_and_fail, connection)


async def answer_and_close(connection: DatagramConnection) -> None:
    await answer_and_return(connection)
    await connection.aclose()
    await connection.receive()


async def answer_until_time_is_out(connection: DatagramConnection) -> None:
    await answer_and_return(connection)
    connection.receive_timeout = 0.05
    await connection.receive()


async def answer_and_stop_waiting_often(connection: DatagramConnection) -> None:
    await answer_and_return(connection)
    for _ in range(3):
        with anyio.move_on_after(0.01):
            await connection.receive()


@pytest.mark.parametrize(
    "answers",
    [
        answer_and_return,
        answer_and_fail,
        answer_and_return_the_connection,
        answer_from_a_task_that_fails,
        answer_and_close,
        answer_until_time_is_out,
        answer_and_stop_waiting_often,
    ],
)
async def test_a_datagram_connection_is_freed_whose_handler_has_waited(
    answers: Handler, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "esockd_core")  # a record that is kept keeps its error

    def peers() -> int:
        return sum(issubclass(type(each), DatagramBase) for each in gc.get_objects())

    async with open_listener("udp", "udp://127.0.0.1:0", answers) as listener:
        gc.collect()
        gc.disable()
        try:
            before = peers()
            for _ in range(COUNT):
                with Client(listener) as client:
                    assert await client.ask(b"one") == b"one"
                    assert await client.ask(b"two") == b"two"
                    await until(lambda: not listener.connections)
            await reasons(listener, COUNT)
            assert peers() - before <= 1  # trio remembers the task that ended last
        finally:
            gc.enable()
