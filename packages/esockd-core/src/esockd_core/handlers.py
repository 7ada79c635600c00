"""Handlers that come with the package: one that forwards, and the small classic services for trying out limits.

Pass one to `Server.open` or `open_listener` as the handler: `await server.open("echo", 5000, echo)`. A handler of your
own can leave a connection to `echo` and `discard`: `await echo(connection)`. None of them loses a byte or keeps more
in memory than the limits of its listener allow. They wait for a peer that does not read, and pause a peer that sends
without reading.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import anyio

from esockd_core._connection.datagram_face import DatagramConnection
from esockd_core._connection.handler import CallbackHandler
from esockd_core._forwarding.handler import ForwardHandler

if TYPE_CHECKING:
    from typing import TypeAlias

    from esockd_core._connection.face import StreamConnection

    Either: TypeAlias = StreamConnection | DatagramConnection

__all__ = ["ForwardHandler", "StaticHandler", "chargen", "daytime", "discard", "echo"]

BLOCK_BYTES: Final = 65_536  # sent at a time; the next block waits until the peer has room for it

# RFC 867 wants ASCII, which the names of the process's locale need not be.
WEEKDAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS: Final = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip

PRINTABLE: Final = bytes(range(0x20, 0x7F))  # the 95 characters of RFC 864's pattern
LINE_CHARACTERS: Final = 72
PATTERN: Final = b"".join((PRINTABLE * 2)[at : at + LINE_CHARACTERS] + b"\r\n" for at in range(len(PRINTABLE)))
LINE_BYTES: Final = LINE_CHARACTERS + 2
CHARGEN_BLOCK: Final = PATTERN * (BLOCK_BYTES // len(PATTERN))


class _Echo(CallbackHandler["Either"]):
    async def __call__(self, connection: Either) -> None:
        """Serve one connection from within another handler."""
        with connection.until_draining():
            async for data in connection:
                await connection.send(data)

    def data_received(self, connection: Either, data: bytes) -> None:
        try:
            connection.send_nowait(data)
        except anyio.WouldBlock:
            if not isinstance(connection, DatagramConnection):
                raise


class _Discard(CallbackHandler["Either"]):
    async def __call__(self, connection: Either) -> None:
        """Serve one connection from within another handler."""
        with connection.until_draining():
            async for _ in connection:
                pass


async def daytime(connection: Either) -> None:
    """Send the time of day (UTC) as one line, and close. Bytes of the peer are thrown away (RFC 867)."""
    now = time.gmtime()
    day = f"{WEEKDAYS[now.tm_wday]}, {MONTHS[now.tm_mon - 1]} {now.tm_mday}, {now.tm_year}"
    await connection.send(f"{day} {now.tm_hour:02}:{now.tm_min:02}:{now.tm_sec:02}-UTC\r\n".encode("ascii"))


async def chargen(connection: Either) -> None:
    """Send a pattern of characters until the peer or the listener ends it (RFC 864).

    Bytes of the peer are thrown away. A drain ends it after a whole line. Over UDP, each datagram is answered by one.
    """
    if isinstance(connection, DatagramConnection):
        async for _ in connection:
            at = connection.datagrams_out * LINE_BYTES % len(PATTERN)
            await connection.send(PATTERN[at : at + LINE_BYTES])
        return
    async with anyio.create_task_group() as task_group:
        task_group.start_soon(_throw_away, connection)
        try:
            while not connection.draining:
                await connection.send(CHARGEN_BLOCK)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass  # the peer has seen enough
        task_group.cancel_scope.cancel()


async def _throw_away(connection: Either) -> None:
    try:
        async for _ in connection:
            pass
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        pass


class StaticHandler:
    """Sends the same bytes to every client, and closes. Bytes of the client are thrown away.

    Over UDP they are one datagram, the answer to each that comes.

    Args:
        content: The bytes to send, from none to a whole file.
    """

    def __init__(self, content: bytes) -> None:
        self.content: Final = bytes(content)

    async def __call__(self, connection: Either) -> None:
        """Serve one connection."""
        if isinstance(connection, DatagramConnection):
            await connection.send(self.content)
            return
        for at in range(0, len(self.content), BLOCK_BYTES):
            await connection.send(self.content[at : at + BLOCK_BYTES])


echo: Final = _Echo()
"""Send back every byte, until the peer finishes sending (RFC 862)."""

discard: Final = _Discard()
"""Throw away every byte, until the peer finishes sending (RFC 863)."""
