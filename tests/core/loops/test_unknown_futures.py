"""Futures that keep their callbacks in another way than CPython's today: the event loop runs whoever waits for one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from tests.core.conftest import ASYNCIO_ONLY, Serve
from tests.core.datagrams.udp import Client
from tests.core.loops.resumed import ask, is_resumed

from esockd_core import Connection, open_listener

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.anyio, ASYNCIO_ONLY]


def missing(_: object) -> None:
    raise AttributeError("_callbacks")


SHAPES: dict[str, Callable[[Any], object]] = {
    "missing": missing,
    "without contexts": lambda kept: kept and [callback for callback, _ in kept],
    "with something more": lambda kept: kept and [(*each, None) for each in kept],
    "of several": lambda kept: kept and kept * 2,
    "none": lambda _: [],
}


@pytest.fixture(params=SHAPES)
def unknown_futures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Have the running loop make such futures."""

    class Unknown(asyncio.Future[Any]):
        @property
        def _callbacks(self) -> Any:
            return SHAPES[request.param](super()._callbacks)

    def use() -> None:
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "create_future", lambda: Unknown(loop=loop), raising=False)

    return use


async def echo_by_the_loop(connection: Connection) -> None:
    await connection.send(b"ready")
    async for data in connection:
        assert not is_resumed()
        await connection.send(data)


async def test_streams_are_served_by_the_loop(serve: Serve, unknown_futures: Callable[[], None]) -> None:
    unknown_futures()
    async with serve(echo_by_the_loop) as (_, client):
        await client.receive()
        for question in (b"one", b"two", b"three"):
            assert await ask(client, question) == question


async def test_datagrams_are_served_by_the_loop(unknown_futures: Callable[[], None]) -> None:
    unknown_futures()
    async with open_listener("udp", "udp://127.0.0.1:0", echo_by_the_loop) as listener:
        with Client(listener) as client:
            assert [await client.ask(b"one"), await client.receive()] == [b"ready", b"one"]
            for question in (b"two", b"three"):
                assert await client.ask(question) == question
