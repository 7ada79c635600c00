"""What the tests of the contract share: the two kinds of connection on which each of them runs, and notes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio
import pytest

from esockd_core import Handler, ListenerOptions, open_listener
from esockd_core.testing import memory_connection, reset

if TYPE_CHECKING:
    from anyio.abc import ByteStream


@dataclass
class Link:
    """A connection as a test holds it: the client's end, and how it ended."""

    peer: ByteStream
    reset: Callable[[], Awaitable[None]]
    connections: Callable[[], Any]
    reason: str | None = None

    async def receive_exactly(self, count: int) -> bytes:
        received = b""
        while len(received) < count:
            received += await self.peer.receive()
        return received

    async def receive_all(self) -> bytes:
        return b"".join([data async for data in self.peer])


Connect: TypeAlias = Callable[..., AbstractAsyncContextManager[Link]]


@asynccontextmanager
async def in_memory(handler: Handler, **options: Any) -> AsyncIterator[Link]:
    connection = memory_connection(options=ListenerOptions(**options))
    with anyio.fail_after(20):
        async with connection.served_by(handler, raise_failure=False) as peer:

            async def reset_peer() -> None:
                peer.reset()

            link = Link(peer, reset_peer, lambda: [connection])
            yield link
    link.reason = connection.reason


@asynccontextmanager
async def over_loopback(handler: Handler, **options: Any) -> AsyncIterator[Link]:
    with anyio.fail_after(20):
        async with open_listener("test", "127.0.0.1:0", handler, **options) as listener:
            assert listener.port is not None
            async with await anyio.connect_tcp("127.0.0.1", listener.port) as client:
                link = Link(client, lambda: reset(client), lambda: listener.connections)
                yield link
    (link.reason,) = listener.stats().shutdown_counts


@pytest.fixture(params=[in_memory, over_loopback], ids=["memory", "listener"])
def connect(request: pytest.FixtureRequest) -> Connect:
    chosen: Connect = request.param
    return chosen


class Notes(list[str]):
    """What happened, in order."""

    def has(self, *expected: str) -> bool:
        return self == list(expected)

    async def error_of(self, action: Awaitable[object]) -> None:
        """Note the name of the error, or what was returned."""
        try:
            returned = await action
        except Exception as error:  # noqa: BLE001
            self.append(type(error).__name__)
        else:
            self.append(repr(returned))

    async def until(self, *expected: str) -> None:
        while not set(expected) <= set(self):  # noqa: ASYNC110
            await anyio.sleep(0.005)
