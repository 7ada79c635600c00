"""What the tests of forwarding share: peers that are no part of esockd, and a count of open files."""

from __future__ import annotations

import gc
import random
import socket
import struct
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import SocketAttribute, SocketStream
from tests.core.conftest import MIB

from esockd_core import Listener, open_listener

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from esockd_core.handlers import ForwardHandler


LARGE = random.Random(1).randbytes(MIB) * 8  # more than every buffer between the ends holds
RESET_AT_CLOSE = struct.pack("ii", 1, 0)


@asynccontextmanager
async def upstream(serve: Callable[[Any], Awaitable[None]]) -> AsyncIterator[int]:
    """A server of AnyIO's on 127.0.0.1; gives its port."""
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as group:

        async def serve_one(stream: SocketStream) -> None:
            async with stream:
                with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream):
                    await serve(stream)

        group.start_soon(listener.serve, serve_one)
        yield listener.extra(SocketAttribute.local_port)
        group.cancel_scope.cancel()


@asynccontextmanager
async def forwarding(
    handler: ForwardHandler, address: object = "127.0.0.1:0", **options: Any
) -> AsyncIterator[Listener]:
    """A listener that forwards; within 30 seconds everything is over."""
    with anyio.fail_after(30):
        async with open_listener("gateway", address, handler, **options) as listener:
            yield listener


@asynccontextmanager
async def connected(listener: Listener) -> AsyncIterator[SocketStream]:
    """A client."""
    assert listener.port is not None
    async with await anyio.connect_tcp("127.0.0.1", listener.port) as client:
        yield client


async def echo(stream: SocketStream) -> None:
    async for data in stream:
        await stream.send(data)


async def send_and_finish(stream: SocketStream, data: bytes) -> None:
    await stream.send(data)
    await stream.send_eof()


async def read_all(stream: Any) -> bytes:
    """What comes until the end."""
    return b"".join([data async for data in stream])


async def take(raw: socket.socket) -> bytes:
    """What has come to a socket."""
    await anyio.wait_readable(raw)
    return raw.recv(MIB)


def reset(stream: SocketStream) -> None:
    """Close a stream of AnyIO's so that its peer sees a reset (socket(7), SO_LINGER)."""
    raw = stream.extra(SocketAttribute.raw_socket)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)


def open_files() -> int:
    """Descriptors of this process."""
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))
