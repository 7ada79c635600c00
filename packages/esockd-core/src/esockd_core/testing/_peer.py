"""The client's end of a connection in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyio import BrokenResourceError, BusyResourceError, ClosedResourceError, EndOfStream
from anyio.abc import ByteStream
from anyio.lowlevel import checkpoint

from esockd_core._connection.face import READ_BYTES
from esockd_core._connection.names import as_bytes
from esockd_core.testing._wire import take

if TYPE_CHECKING:
    from esockd_core._connection.face import StreamConnection
    from esockd_core.testing._wire import Wire


class MemoryPeer(ByteStream):
    """The client of a `MemoryConnection`, which a test holds.

    It is a byte stream of AnyIO, so it can be wrapped in `BufferedByteReceiveStream` and the like.
    """

    def __init__(self, connection: StreamConnection, wire: Wire, read_buffer_bytes: int) -> None:
        self._connection = connection
        self._wire = wire
        self._read_buffer_bytes = read_buffer_bytes
        self._receiving = False
        self._closed = False
        self._finished = False

    async def receive(self, max_bytes: int = READ_BYTES) -> bytes:
        """Wait for bytes from the handler: at least one, at most `max_bytes`.

        Raises:
            anyio.EndOfStream: If the handler finished sending, or the connection was closed.
            anyio.ClosedResourceError: If this end is closed.
            anyio.BrokenResourceError: If the connection was closed over bytes that nobody received, which is a reset.
            anyio.BusyResourceError: If another task is receiving.
            ValueError: If `max_bytes` is less than 1.
        """
        if max_bytes < 1:
            raise ValueError(f"max_bytes is {max_bytes}; receive() takes 1 or more")
        if self._receiving:
            raise BusyResourceError("receiving from")
        self._receiving = True
        try:
            await checkpoint()
            while True:
                self._require_open()
                if self._wire.outgoing:
                    data = take(self._wire.outgoing, max_bytes)
                    self._wire.change()
                    return data
                if self._wire.finished:
                    raise EndOfStream
                await self._wire.wait()
        finally:
            self._receiving = False

    async def receive_all(self) -> bytes:
        """Wait for everything that the handler sends until it finishes.

        Raises:
            anyio.ClosedResourceError: As for `receive`.
            anyio.BrokenResourceError: As for `receive`.
            anyio.BusyResourceError: As for `receive`.
        """
        return b"".join([data async for data in self])

    async def send(self, item: bytes) -> None:
        """Send bytes to the handler. Waits while `read_buffer_bytes` or more wait for the handler.

        Raises:
            anyio.ClosedResourceError: If this end is closed, or finished sending.
            anyio.BrokenResourceError: If the connection is over.
        """
        await checkpoint()
        data = as_bytes(item)
        while True:
            self._require_open()
            if self._finished:
                raise ClosedResourceError
            if self._connection.state == "closed":
                raise BrokenResourceError("the connection is closed")
            if len(self._wire.incoming) < self._read_buffer_bytes:
                break
            await self._wire.wait()
        if self._connection.state == "open":  # otherwise it reads on only to throw away
            self._wire.incoming += data
            self._wire.change()

    async def send_eof(self) -> None:
        """Finish sending. Bytes of the handler can still be received."""
        await checkpoint()
        self._require_open()
        self._finished = self._wire.peer_finished = True
        self._wire.change()

    async def aclose(self) -> None:
        """Close this end, as a client that leaves. It is a reset if bytes of the handler were not received."""
        if not self._closed:
            self._closed = True
            self._wire.peer_reset = bool(self._wire.outgoing)
            self._wire.peer_finished = self._wire.peer_gone = True
            self._wire.outgoing.clear()
            self._wire.change()
        await checkpoint()

    def reset(self) -> None:
        """Reset the connection (RST). The handler gets `anyio.BrokenResourceError` after it has received the rest."""
        if not self._closed:
            self._closed = True
            self._wire.peer_reset = True
            self._wire.outgoing.clear()
            self._wire.change()

    def _require_open(self) -> None:
        if self._closed:
            raise ClosedResourceError
        if self._wire.reset:
            raise BrokenResourceError("the connection was reset")
