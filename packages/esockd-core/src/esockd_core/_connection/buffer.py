"""The bytes that a connection has received and its handler has not taken."""

from __future__ import annotations

import sys
from typing import Any

from esockd_core._connection.face import StreamConnection


class Unread:
    """Bytes of which the first were taken. Taking more moves a position, and copies nothing that stays.

    Attributes:
        data: All bytes.
        begin: How many of them were taken; at least one is left.
    """

    __slots__ = ("begin", "data")

    def __init__(self, data: bytes, begin: int = 0) -> None:
        self.data = data
        self.begin = begin

    def __len__(self) -> int:
        return len(self.data) - self.begin

    def rest(self) -> bytes:
        """The bytes that are left."""
        return self.data[self.begin :]


class Buffer(StreamConnection):
    """The buffering of a connection: what was read at one time, and what came after it while nobody took that."""

    __slots__ = ()

    _chunk: bytes | bytearray | Unread | None
    _more: bytes | bytearray | None

    def _buffer(self, data: bytes) -> None:
        """Keep bytes until the handler takes them."""
        if self._chunk is None:
            self._chunk = data
        elif self._more is None:
            self._more = data
        else:
            if type(self._more) is bytes:
                self._more = bytearray(self._more)
            self._more += data

    def _buffered_bytes(self) -> int:
        chunk, more = self._chunk, self._more
        return 0 if chunk is None else len(chunk) if more is None else len(chunk) + len(more)

    def _take_all_buffered(self) -> bytes:
        return b"" if self._chunk is None else self._take_buffered(sys.maxsize)

    def _take_buffered(self, max_bytes: int) -> bytes:
        """Take from the buffer, which is not empty."""
        size = len(self._chunk or b"")
        if size > max_bytes:
            return self._take_part(max_bytes, max_bytes)
        data, more = self._take_chunk(), self._more
        if more is None:
            return data
        self._more = None
        if size + len(more) <= max_bytes:
            return b"".join((data, more))
        self._chunk = more
        return data

    def _find(self, delimiter: bytes, searched: int) -> int:
        """Where in the buffer the delimiter begins, -1 for nowhere; `searched` bytes do not hold all of it."""
        chunk: Any = self._chunk
        if chunk is None:
            return -1
        data, begin = (chunk.data, chunk.begin) if type(chunk) is Unread else (chunk, 0)
        size, overlap = len(data) - begin, len(delimiter) - 1
        at: int
        if searched < size:
            at = data.find(delimiter, begin + max(0, searched - overlap))
            if at >= 0:
                return at - begin
        more = self._more
        if more is None:
            return -1
        if overlap:
            tail = data[max(begin, len(data) - overlap) :]
            at = (tail + more[:overlap]).find(delimiter)
            if at >= 0:
                return size - len(tail) + at
        at = more.find(delimiter, max(0, searched - size - overlap))
        return at if at < 0 else size + at

    def _cut(self, count: int, kept: int) -> bytes:
        """Take bytes that are in the buffer, and return the first of them."""
        if not count:
            return b""
        size = len(self._chunk or b"")
        if count < size:
            return self._take_part(count, kept)
        data, more = self._take_chunk(), self._more
        if more is not None:
            taken = count - size
            data = b"".join((data, memoryview(more)[:taken]))
            self._chunk = Unread(bytes(more), taken) if taken < len(more) else None
            self._more = None
        self._cut_off()
        return data[:kept]

    def _cut_off(self) -> None:
        """There is more room in the buffer."""

    def _take_part(self, count: int, kept: int) -> bytes:
        """Take fewer bytes than the chunk has, and return the first of them."""
        chunk: Any = self._chunk
        if type(chunk) is not Unread:
            self._chunk = chunk = Unread(bytes(chunk))
        begin: int = chunk.begin
        chunk.begin = begin + count
        taken: bytes = chunk.data[begin : begin + kept]
        return taken

    def _take_chunk(self) -> bytes:
        chunk: Any = self._chunk
        self._chunk = None
        return chunk.rest() if type(chunk) is Unread else bytes(chunk)

    def _forget_taken(self) -> None:
        """Keep only what is left, because the connection is about to wait for more."""
        if type(self._chunk) is Unread:
            self._chunk = self._chunk.rest()
