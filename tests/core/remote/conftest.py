"""What the tests of the control socket share: a program with one, and a client that writes its lines by hand."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio
import pytest
from tests.core.conftest import echo

from esockd_core import ControlServer, Server

if TYPE_CHECKING:
    from pathlib import Path

    from anyio.abc import SocketStream

Controlled: TypeAlias = Callable[..., AbstractAsyncContextManager[tuple[Server, ControlServer]]]


class ByHand:
    """A client that sends what it is told, right or wrong."""

    def __init__(self, stream: SocketStream) -> None:
        self.stream = stream
        self._buffer = b""

    async def line(self) -> dict[str, Any]:
        """The next line that comes."""
        with anyio.fail_after(30):
            while b"\n" not in self._buffer:
                self._buffer += await self.stream.receive()
        line, _, self._buffer = self._buffer.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    async def tell(self, message: object) -> None:
        """Send one line."""
        await self.stream.send(json.dumps(message).encode() + b"\n")

    async def ask(self, method: str, listener: str | None = "echo", **params: Any) -> dict[str, Any]:
        """Send a request, and give the next line that comes."""
        await self.tell({"id": 1, "method": method, "listener": listener, "params": params})
        return await self.line()


@asynccontextmanager
async def by_hand(path: Path | None) -> AsyncIterator[ByHand]:
    """Connect, and take the greeting."""
    assert path is not None
    async with await anyio.connect_unix(path) as stream:
        client = ByHand(stream)
        assert "esockd" in await client.line()
        yield client


@pytest.fixture
def controlled(tmp_path: Path) -> Controlled:
    """A server with a control socket and the listener "echo"."""

    @asynccontextmanager
    async def run(**options: Any) -> AsyncIterator[tuple[Server, ControlServer]]:
        with anyio.fail_after(40):
            given = {"path": tmp_path / "edge.sock", **options}
            async with Server() as server, ControlServer(server, "edge", **given) as control:
                await server.open("echo", "127.0.0.1:0", echo)
                yield server, control

    return run
