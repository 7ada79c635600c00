"""The client's end of a connection in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyio import BrokenResourceError, BusyResourceError, ClosedResourceError, EndOfStream
from anyio.abc import ByteStream
from anyio.lowlevel import checkpoint

from esockd_core._connection import READ_BYTES, as_bytes, bad_max_bytes
from esockd_core.testing._wire import take

if TYPE_CHECKING:
    from esockd_core._connection import StreamConnection
    from esockd_core.testing._wire import Wire


class MemoryPeer(ByteStream):
    """The client that a `MemoryConnection` is connected to: what a test holds.

    It is a byte stream of AnyIO's, so that `BufferedByteReceiveStream` and the like go around it.
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
            anyio.EndOfStream: The handler finished sending, or the connection was closed.
            anyio.ClosedResourceError: This end is closed.
            anyio.BrokenResourceError: The connection was closed over bytes that nobody received, which is a reset.
            anyio.BusyResourceError: Another task is receiving.
            ValueError: `max_bytes` is less than 1.
        """
        if max_bytes < 1:
            raise bad_max_bytes(max_bytes)
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
            anyio.ClosedResourceError: As of `receive`.
            anyio.BrokenResourceError: Likewise.
            anyio.BusyResourceError: Likewise.
        """
        return b"".join([data async for data in self])

    async def send(self, item: bytes) -> None:
        """Send bytes to the handler; waits while `read_buffer_bytes` or more wait for it.

        Raises:
            anyio.ClosedResourceError: This end is closed, or finished sending.
            anyio.BrokenResourceError: The connection is over.
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
        """Finish sending; what the handler sends is still received."""
        await checkpoint()
        self._require_open()
        self._finished = self._wire.peer_finished = True
        self._wire.change()

    async def aclose(self) -> None:
        """Close this end, as a client does that leaves: a reset where the handler sent what was not received."""
        if not self._closed:
            self._closed = True
            self._wire.peer_reset = bool(self._wire.outgoing)
            self._wire.peer_finished = self._wire.peer_gone = True
            self._wire.outgoing.clear()
            self._wire.change()
        await checkpoint()

    def reset(self) -> None:
        """Close this end by a reset (RST): the handler gets `anyio.BrokenResourceError` once it received the rest."""
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
