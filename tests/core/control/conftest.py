"""What the tests of control share."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import TYPE_CHECKING, TypeAlias

import pytest
from tests.core.conftest import answer, connect, rest

from esockd_core import ControlClient, ControlServer, Listener, ListenerControl, RehearsalReport

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator
    from pathlib import Path

ControlOf: TypeAlias = Callable[[Listener], AbstractAsyncContextManager[ListenerControl]]


@pytest.fixture(params=["here", "remote"])
def control_of(request: pytest.FixtureRequest, tmp_path: Path) -> ControlOf:
    """Run the test with the listener itself, and with a client of its control socket."""

    @asynccontextmanager
    async def control(listener: Listener) -> AsyncIterator[ListenerControl]:
        if request.param == "here":
            yield listener
            return
        path = tmp_path / "control.sock"
        async with ControlServer(listener, path=path), ControlClient(path) as client:
            yield client.listener(listener.name)

    return control


async def served(listener: Listener, source: str = "127.0.0.1") -> socket.socket:
    """A client that has had an answer."""
    client = connect(listener, source)
    assert await answer(client) == b"hello"
    return client


async def ids(control: ListenerControl, network: str | None = None) -> list[int]:
    return [connection.id for connection in (await control.list_connections(network)).connections]


async def refused(client: socket.socket) -> None:
    with suppress(ConnectionError):
        assert await rest(client) == b""


async def report(control: ListenerControl) -> RehearsalReport:
    """The rehearsal that there is."""
    found = await control.get_rehearsal()
    assert found is not None
    return found
