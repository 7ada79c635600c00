"""Clients of a proxy, and handlers that say who they take for the client."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import anyio
from tests.patience import PATIENCE_S

from esockd_core import CallbackHandler, StreamConnection, open_listener
from esockd_proxyproto import Command, Endpoint, ProxyHeader, Tlv, TlvType, encode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyio.abc import SocketStream

    from esockd_core import Handler, Listener

CLIENT = Endpoint("192.0.2.7", 41000)
PROXY = Endpoint("192.0.2.1", 443)
V1 = encode(ProxyHeader(1, source=CLIENT, destination=PROXY))
V2 = encode(ProxyHeader(2, source=CLIENT, destination=PROXY, tlvs=[Tlv(TlvType.UNIQUE_ID, b"seven")]))
V2_IPV6 = encode(ProxyHeader(2, source=Endpoint("2001:db8::7", 41000), destination=Endpoint("2001:db8::1", 443)))
V1_IPV6 = b"PROXY TCP6 2001:db8::7 2001:db8::1 41000 443\r\n"
LOCAL = encode(ProxyHeader(2, Command.LOCAL))
UNKNOWN = b"PROXY UNKNOWN\r\n"


async def tell(connection: StreamConnection) -> None:
    """Say who the client is, then echo."""
    await connection.send(f"{connection.peername}|".encode())
    async for data in connection:
        await connection.send(data)


class Tell(CallbackHandler):
    def connection_made(self, connection: StreamConnection) -> None:
        connection.send_nowait(f"{connection.peername}|".encode())

    def data_received(self, connection: StreamConnection, data: bytes) -> None:
        connection.send_nowait(data)

    def connection_lost(self, connection: StreamConnection, error: Exception | None) -> None:
        assert connection.id


@asynccontextmanager
async def proxied(handler: Handler, **options: Any) -> AsyncIterator[Listener]:
    with anyio.fail_after(PATIENCE_S):
        async with open_listener("proxied", "127.0.0.1:0", handler, **{"proxy_protocol": True, **options}) as listener:
            yield listener


async def connect(listener: Listener) -> SocketStream:
    assert listener.port is not None
    return await anyio.connect_tcp("127.0.0.1", listener.port)


async def answer(client: SocketStream, size: int = 65_536) -> bytes:
    """What comes until `size` bytes or the end."""
    received = b""
    with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
        while len(received) < size:
            received += await client.receive()
    return received


async def exchange(listener: Listener, *pieces: bytes) -> bytes:
    """Send pieces one after the other, finish, and give all that came back."""
    async with await connect(listener) as client:
        with suppress(anyio.BrokenResourceError, OSError):  # turned away before it had finished
            for piece in pieces:
                await client.send(piece)
            await client.send_eof()
        return await answer(client)
