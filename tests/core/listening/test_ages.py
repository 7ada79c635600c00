"""Connections that grow old: asked to end, each at a time of its own, and cut when they do not."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio
import pytest
from tests.core.conftest import Echo, Serve, connect_stream, reasons, receive_all, until

from esockd_core import Handler, InvalidOption, ListenerOptions, StreamConnection, open_listener
from esockd_core._listening.ages import Ages

if TYPE_CHECKING:
    from anyio.abc import SocketStream

pytestmark = pytest.mark.anyio


async def echo(connection: StreamConnection) -> None:
    with connection.until_draining():
        async for data in connection:
            await connection.send(data)
    await connection.send(b"goodbye")


async def stay(connection: StreamConnection) -> None:
    await connection.wait_draining()
    await anyio.sleep_forever()


async def test_a_connection_is_asked_to_end_at_its_age_and_has_its_time_for_that(serve: Serve) -> None:
    async with serve(echo, max_age=0.3) as (listener, client):
        await client.send(b"hello ")
        assert await receive_all(client) == b"hello goodbye"
        assert await reasons(listener) == {"normal": 1}
        assert listener.state == "running"


async def test_callbacks_are_asked_too(serve: Serve) -> None:
    async with serve(Echo(), max_age=0.3) as (listener, client):
        assert await receive_all(client) == b""
        assert await reasons(listener) == {"shutdown": 1}


@pytest.mark.parametrize("handler", [stay], ids=["coroutine"])
async def test_a_connection_that_does_not_end_is_cut(serve: Serve, handler: Handler) -> None:
    async with serve(handler, max_age=0.2, shutdown_timeout=0.2) as (listener, client):
        with suppress(anyio.BrokenResourceError):
            await receive_all(client)
        assert await reasons(listener) == {"max_age": 1}


async def test_a_handler_that_swallows_its_cancellation_is_cut_all_the_same(serve: Serve) -> None:
    async def swallow(connection: StreamConnection) -> None:
        await connection.wait_draining()
        with suppress(BaseException):
            await anyio.sleep_forever()
        await anyio.sleep_forever()

    async with serve(swallow, max_age=0.2, shutdown_timeout=0.1) as (listener, client):
        with suppress(anyio.BrokenResourceError):
            await receive_all(client)
        assert await reasons(listener) == {"max_age": 1}


async def test_a_handler_that_swallows_every_cancellation_loses_its_socket(serve: Serve) -> None:
    is_over = False

    async def swallow(connection: StreamConnection) -> None:
        while not is_over and connection.state == "open":
            with suppress(anyio.get_cancelled_exc_class()):
                await anyio.sleep(0.05)

    async with serve(swallow, max_age=0.2, shutdown_timeout=0.1) as (listener, client):
        try:
            with anyio.fail_after(30), suppress(anyio.BrokenResourceError):
                await receive_all(client)
            assert await reasons(listener) == {"max_age": 1}
        finally:
            is_over = True


async def test_setting_the_clock_of_the_machine_forward_makes_no_connection_old(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve(stay, max_age=3600) as (listener, _):
        await until(lambda: len(listener.connections) == 1)
        an_hour_later = time.time() + 3600
        monkeypatch.setattr(time, "time", lambda: an_hour_later)
        await Ages(listener._site).look(anyio.current_time())
        assert [each.draining for each in listener.connections] == [False]


async def test_the_jitter_keeps_clients_from_coming_back_together() -> None:
    ended: list[int] = []

    async def note(connection: StreamConnection) -> None:
        await connection.wait_draining()
        ended.append(connection.id)

    with anyio.fail_after(20):
        async with open_listener("test", "127.0.0.1:0", note, max_age=100, max_age_jitter=100) as listener:
            clients: list[SocketStream] = [await connect_stream(listener) for _ in range(40)]
            await until(lambda: len(listener.connections) == 40)
            first = {connection.id for connection in listener.connections}
            await listener.set_options(max_age=1, max_age_jitter=1)
            await until(lambda: len(ended) == 40)
            assert set(ended) == first
            assert ended != sorted(ended)
            for client in clients:
                await client.aclose()


async def test_open_connections_feel_a_new_age_and_none_when_it_is_lifted(serve: Serve) -> None:
    async with serve(echo, max_age=3600) as (listener, client):
        await client.send(b"1")
        await client.receive()
        await listener.set_options(max_age=None)
        await listener.set_options(max_age=0.2)
        assert await receive_all(client) == b"goodbye"


@pytest.mark.parametrize("options", [{"max_age": 0}, {"max_age": 5, "max_age_jitter": -1}])
def test_ages_that_make_no_sense_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(InvalidOption):
        ListenerOptions(**options)  # type: ignore[arg-type]
