"""Handlers that come with the listener: one that forwards, and the small services of old for trying out its limits.

Each takes its place where `Server.open` and `open_listener` want a handler: `await server.open("echo", 5000, echo)`.
None of them loses a byte, and none keeps more in memory than the limits of its listener allow: a peer that does not
read is waited for, and a peer that sends without reading is paused.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import anyio

from esockd_core._forward import ForwardHandler
from esockd_core._handler import CallbackHandler

if TYPE_CHECKING:
    from esockd_core._connection import StreamConnection
    from esockd_core._handler import Handler

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
CHARGEN_BLOCK: Final = PATTERN * (BLOCK_BYTES // len(PATTERN))


class _Echo(CallbackHandler):
    def data_received(self, connection: StreamConnection, data: bytes) -> None:
        connection.send_nowait(data)


class _Discard(CallbackHandler):
    pass


async def daytime(connection: StreamConnection) -> None:
    """Send the time of day (UTC) as one line, and close; what the peer sends is thrown away (RFC 867)."""
    now = time.gmtime()
    day = f"{WEEKDAYS[now.tm_wday]}, {MONTHS[now.tm_mon - 1]} {now.tm_mday}, {now.tm_year}"
    await connection.send(f"{day} {now.tm_hour:02}:{now.tm_min:02}:{now.tm_sec:02}-UTC\r\n".encode("ascii"))


async def chargen(connection: StreamConnection) -> None:
    """Send a pattern of characters until the peer or the listener ends it (RFC 864).

    What the peer sends is thrown away. A drain ends it after a whole line.
    """
    async with anyio.create_task_group() as task_group:
        task_group.start_soon(_throw_away, connection)
        try:
            while not connection.draining:
                await connection.send(CHARGEN_BLOCK)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass  # the peer has seen enough
        task_group.cancel_scope.cancel()


async def _throw_away(connection: StreamConnection) -> None:
    try:
        async for _ in connection:
            pass
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        pass


class StaticHandler:
    """Sends the same bytes to everybody, and closes; what the peer sends is thrown away.

    Args:
        content: What to send, from nothing to a whole file.
    """

    def __init__(self, content: bytes) -> None:
        self.content: Final = bytes(content)

    async def __call__(self, connection: StreamConnection) -> None:
        """Serve one connection."""
        for at in range(0, len(self.content), BLOCK_BYTES):
            await connection.send(self.content[at : at + BLOCK_BYTES])


echo: Final[Handler] = _Echo()
"""Send back every byte, until the peer finishes sending (RFC 862)."""

discard: Final[Handler] = _Discard()
"""Throw away every byte, until the peer finishes sending (RFC 863)."""
