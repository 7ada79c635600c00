"""Connections of the load: each has one message under way, and compares its answer byte by byte."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol


class Owner(Protocol):
    """What hears of a connection's answers and end."""

    def answered(self, link: Link) -> None:
        """The answer is whole and right."""

    def failed(self, link: Link, kind: str) -> None:
        """The connection cannot go on."""


class Link:
    """A connection, or a socket for datagrams.

    Attributes:
        expected: What was sent and has not come back; empty while nothing is under way.
        late: The datagram that was given up last: it may still come.
        due: When that was to be sent, in nanoseconds.
        sent_at: When it was.
        waiter: Who waits for the answer, or for the handshake; None if the owner is to be told.
        is_over: Whether it has ended, or is not wanted any more.
    """

    __slots__ = ("_got", "due", "expected", "is_over", "late", "owner", "sent_at", "transport", "waiter")

    def __init__(self, owner: Owner) -> None:
        self.owner: Owner = owner
        self.transport: Any = None
        self.expected: bytes = b""
        self.late: bytes = b""
        self.due: int = 0
        self.sent_at: int = 0
        self.waiter: asyncio.Future[None] | None = None
        self.is_over: bool = False
        self._got = 0

    def send(self, payload: bytes) -> None:
        """Send a message."""
        raise NotImplementedError

    def close(self) -> None:
        """End it in order."""
        if not self.is_over:
            self.is_over = True
            self.transport.close()

    def abort(self) -> None:
        """End it at once."""
        if not self.is_over:
            self.is_over = True
            self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """End, which is a failure unless it was wanted."""
        if not self.is_over:
            self.is_over = True
            self.owner.failed(self, "closed" if exc is None else kind_of_loss(exc))


class StreamLink(Link, asyncio.Protocol):
    """A connection of TCP, TLS or a Unix socket."""

    __slots__ = ()

    def send(self, payload: bytes) -> None:
        """Send a message."""
        self.transport.write(payload)

    def data_received(self, data: bytes) -> None:
        """Take an answer, or a part of one."""
        if data == self.expected and not self._got:
            self.owner.answered(self)
        elif not self.is_over:
            self._take_part(data)

    def _take_part(self, data: bytes) -> None:
        expected, end = self.expected, self._got + len(data)
        if data[: len(expected) - self._got] != expected[self._got : end] or not expected:
            self.owner.failed(self, "wrong" if expected else "too_much")
        elif end > len(expected):
            self.owner.failed(self, "too_much")
        elif end < len(expected):
            self._got = end
        else:
            self._got = 0
            self.owner.answered(self)


class DatagramLink(Link, asyncio.DatagramProtocol):
    """A socket for UDP."""

    __slots__ = ()

    def send(self, payload: bytes) -> None:
        """Send a message."""
        self.transport.sendto(payload)

    def datagram_received(self, data: bytes, addr: object) -> None:
        """Take an answer."""
        del addr
        self.take(data)

    def take(self, data: bytes) -> None:
        """Take a message as it was sent."""
        if self.is_over:
            return
        if data == self.expected:
            self.owner.answered(self)
        elif data == self.late:
            self.late = b""  # it was counted when it was given up
        else:
            self.owner.failed(self, "wrong" if self.expected else "too_much")

    def error_received(self, exc: Exception) -> None:
        """Take what the kernel tells of an earlier datagram."""
        if not self.is_over:
            self.owner.failed(self, "refused" if isinstance(exc, ConnectionRefusedError) else "failed")


def kind_of_loss(error: Exception) -> str:
    """The kind of error that ended a connection."""
    return "reset" if isinstance(error, ConnectionResetError | BrokenPipeError) else "failed"
