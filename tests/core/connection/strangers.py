"""What strangers may be: clients that stall, reset, or do a TLS handshake by hand, a piece at a time."""

from __future__ import annotations

import socket
import ssl
import struct
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import anyio
from tests.core.tls_clients import client_context
from tests.patience import PATIENCE_S

from esockd_core import open_listener

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from esockd_core import Handler, Listener


@asynccontextmanager
async def serving(handler: Handler, **options: Any) -> AsyncIterator[Listener]:
    address = "tls://127.0.0.1:0" if "tls" in options else "127.0.0.1:0"
    with anyio.fail_after(PATIENCE_S):
        async with open_listener("hostile", address, handler, **options) as listener:
            yield listener


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def secure(client: socket.socket, name: str = "localhost") -> ssl.SSLSocket:
    return client_context().wrap_socket(client, server_hostname=name)


class ByHand:
    """A client of TLS in memory."""

    def __init__(self, name: str = "localhost") -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = client_context().wrap_bio(self.incoming, self.outgoing, server_hostname=name)

    def step(self) -> bytes:
        """Go on with the handshake; what is to be sent."""
        with suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self.outgoing.read()

    def answer(self, client: socket.socket) -> bytes:
        """Take the other side's flight; the last message of ours."""
        while True:
            self.incoming.write(client.recv(65_536))
            if flight := self.step():
                return flight


def hello(name: str = "localhost") -> bytes:
    return ByHand(name).step()


def rest(client: socket.socket) -> bytes:
    received = b""
    with suppress(ConnectionResetError):
        while data := client.recv(65_536):
            received += data
    return received
