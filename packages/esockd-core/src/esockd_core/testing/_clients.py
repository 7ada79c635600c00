"""Clients as a listener on the internet meets them, for any listener and any test.

They connect with plain sockets and without waiting, so the listener's event loop has no turn meanwhile. The next step
of a client happens while it is still in the kernel's queue.
"""

from __future__ import annotations

import socket
import struct
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import anyio
from anyio.abc import SocketAttribute
from anyio.lowlevel import checkpoint

from esockd_core._address import parse_address
from esockd_core._sockets.unix import kernel_address

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anyio.abc import ByteSendStream, ByteStream, SocketStream

ListenerAddress: TypeAlias = str | int | tuple[str, int] | Path
"""Any form that `parse_address` reads and a client can reach, such as an item of `listener.addresses`."""

RESET_AT_CLOSE: Final = struct.pack("ii", 1, 0)  # SO_LINGER with timeout 0, socket(7)


def connect_and_reset(address: ListenerAddress) -> None:
    """Connect and reset the connection before it can be accepted, as an impatient client or a port scan does."""
    with _connect(address) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)


def connect_deaf(address: ListenerAddress) -> socket.socket:
    """Connect with the smallest receive buffer that the kernel gives, so that a client that never reads costs little.

    Returns:
        The client's socket, non-blocking; the caller closes it.
    """
    return _connect(address, receive_buffer_bytes=1)  # the kernel makes it its least, socket(7)


@contextmanager
def silent_clients(address: ListenerAddress, count: int) -> Iterator[list[socket.socket]]:
    """Connect this many clients that say nothing, and close them at the end of the block."""
    with ExitStack() as stack:
        yield [stack.enter_context(_connect(address)) for _ in range(count)]


async def reset(client: SocketStream | socket.socket) -> None:
    """End a connection by a reset (RST) instead of an orderly close."""
    if isinstance(client, socket.socket):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
        client.close()
    else:
        raw: socket.socket = client.extra(SocketAttribute.raw_socket)  # noqa: S610
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
        await anyio.aclose_forcefully(client)


async def send_byte_by_byte(client: ByteSendStream, data: bytes) -> None:
    """Send each byte by itself. A handler that reads late may still get several at once."""
    for byte in data:
        await client.send(bytes([byte]))
        await checkpoint()


async def exchange(client: ByteStream, request: bytes) -> bytes:
    """Send a request and finish sending (half-close), then return everything until the other end finishes."""
    await client.send(request)
    await client.send_eof()
    return b"".join([data async for data in client])


def _connect(address: ListenerAddress, receive_buffer_bytes: int | None = None) -> socket.socket:
    place = parse_address(address)
    where: str | bytes | tuple[str, int]
    if place.path is None:
        where = (place.host or "127.0.0.1", place.port or 0)
        family = socket.AF_INET6 if ":" in where[0] else socket.AF_INET
    else:
        where, family = kernel_address(place.path), socket.AF_UNIX
    with ExitStack() as stack:
        client = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
        if receive_buffer_bytes is not None:  # before it connects, or TCP has offered a larger window already
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        client.connect(where)
        client.setblocking(False)
        stack.pop_all()
    return client
