"""What the tests of TLS listeners share: a listener, and clients that mind how TLS ends."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
from tests.core.tls_clients import dial
from tests.patience import PATIENCE_S

from esockd_core import Listener, TlsOptions, open_listener

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import AsyncIterator

    from esockd_core import Handler


@asynccontextmanager
async def encrypted(handler: Handler, tls: TlsOptions, **options: Any) -> AsyncIterator[Listener]:
    with anyio.fail_after(PATIENCE_S):
        async with open_listener("tls", "tls://127.0.0.1:0", handler, tls=tls, **options) as listener:
            yield listener


def secure(client: socket.socket, context: ssl.SSLContext, name: str = "localhost") -> ssl.SSLSocket:
    return context.wrap_socket(client, server_hostname=name, suppress_ragged_eofs=False)


def read(client: ssl.SSLSocket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size and (data := client.recv(65_536)):
        received += data
    return bytes(received)


def ask(listener: Listener, question: bytes, context: ssl.SSLContext, before: bytes = b"") -> bytes:
    """Ask, read the answer, say goodbye both ways."""
    with secure(dial(listener, before), context) as client:
        client.sendall(question)
        answer = read(client, len(question))
        client.unwrap().close()
        return answer
