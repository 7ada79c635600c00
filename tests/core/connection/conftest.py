"""What the tests of connections share: silent handlers, the reasons of ends, and clients that reset or read by hand."""

from __future__ import annotations

import socket
import struct

import anyio
import pytest
from anyio.abc import SocketAttribute, SocketStream

from esockd_core import CallbackHandler, Connection, ConnectionEvent, Listener


def raw(client: SocketStream) -> socket.socket:
    sock: socket.socket = client.extra(SocketAttribute.raw_socket)
    return sock


async def reset(client: SocketStream) -> None:
    """Close by RST."""
    raw(client).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await anyio.aclose_forcefully(client)


def connect_raw(listener: Listener) -> socket.socket:
    """A client that reads only when told to, whatever happened to the connection."""
    assert listener.port is not None
    client = socket.create_connection(("127.0.0.1", listener.port))
    client.setblocking(False)
    return client


class Ends:
    """Notes the reasons under which connections ended; to be given as `on_event`."""

    def __init__(self) -> None:
        self.reasons: list[str | None] = []
        self.kinds: list[str] = []
        self.started = anyio.Event()
        self.ended = anyio.Event()

    def __call__(self, event: ConnectionEvent) -> None:
        self.kinds.append(event.kind)
        if event.kind == "connection_started":
            self.started.set()
        else:
            self.reasons.append(event.reason)
            self.ended.set()


class Silent(CallbackHandler):
    """Takes what comes and answers nothing."""


async def silent(connection: Connection) -> None:
    async for _ in connection:
        pass


class Hands:
    """Lets the time of listeners pass as a test wants, however busy the machine is."""

    def __init__(self) -> None:
        self._now: float | None = None

    async def pass_time(self, listener: Listener, seconds: float) -> None:
        if self._now is None:
            self._now = anyio.current_time()
        self._now += seconds
        await listener._sweeper.sweep(self._now)


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> Hands:
    """Stop the looks at timeouts that listeners take by themselves, and give what takes them."""
    monkeypatch.setattr("esockd_core._listening.listener.TICK_S", 1e6)
    return Hands()


BOTH_STYLES = pytest.mark.parametrize("handler", [silent, Silent()], ids=["coroutine", "callback"])
