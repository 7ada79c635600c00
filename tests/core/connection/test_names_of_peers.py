"""The address of a peer, for as long as a program may ask for it."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

import pytest
from tests.core.conftest import until

from esockd_core import Connection, ConnectionEvent, Handler, open_listener

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("end", ["in order", "reset"])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_connection_that_has_ended_still_knows_its_peer(handler: Handler, host: str, end: str) -> None:
    names: list[object] = []
    ended: list[Connection] = []

    def note(event: ConnectionEvent) -> None:
        names.append(event.connection.peername)
        if event.kind == "connection_stopped":
            ended.append(event.connection)

    at = "[::1]:0" if ":" in host else "127.0.0.1:0"
    async with open_listener("test", at, handler, on_event=note) as listener:
        assert listener.port is not None
        with socket.create_connection((host, listener.port)) as client:
            client.setblocking(False)
            name = (host, client.getsockname()[1])
            await until(lambda: listener.connections)
            if end == "reset":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await until(lambda: ended)
        # Another client may have its descriptor by then.
        with socket.create_connection((host, listener.port)):
            await until(lambda: listener.connections)
            assert ended[0].peername == ended[0].socket_peername == name
        assert names[:2] == [name, name]


async def test_a_unix_connection_that_has_ended_still_knows_its_peer(handler: Handler, tmp_path: Path) -> None:
    ended: list[Connection] = []

    def note(event: ConnectionEvent) -> None:
        if event.kind == "connection_stopped":
            ended.append(event.connection)

    async with open_listener("test", f"unix:{tmp_path}/server", handler, on_event=note) as listener:
        with socket.socket(socket.AF_UNIX) as client:
            client.bind(str(tmp_path / "client"))
            client.connect(str(tmp_path / "server"))
            await until(lambda: listener.connections)
        await until(lambda: ended)
        assert ended[0].peername == ended[0].socket_peername == str(tmp_path / "client")
