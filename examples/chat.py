"""A line chat with rooms: each line that a client sends goes to everybody else in its room.

python examples/chat.py 5000
nc 127.0.0.1 5000  # in two other terminals
/join kitchen  # typed there: the lines that follow go to that room
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import anyio

from esockd_core import ConnectionGroup, Server, StreamConnection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LONGEST_NAME = 32
rooms: dict[bytes, ConnectionGroup] = {}


async def chat(connection: StreamConnection) -> None:
    """Pass on the lines of one client, until it leaves or the server comes to its end."""
    lines = connection.lines(max_bytes=1024)
    room: bytes | None = b"hall"
    with connection.until_draining():
        while room is not None:
            room = await stay(connection, lines, room)


async def stay(connection: StreamConnection, lines: AsyncIterator[bytes], name: bytes) -> bytes | None:
    """Pass on lines in one room; return the next one, or None at the end."""
    # A mebibyte waits for a slow member. Beyond that it reads too slowly to stay, and delays nobody.
    room = rooms.setdefault(name, ConnectionGroup(when_slow="close"))
    try:
        with room.joined(connection):
            async for line in lines:
                if line.startswith(b"/join "):
                    return line.removeprefix(b"/join ").strip()[:LONGEST_NAME]
                room.broadcast(line + b"\n", exclude=connection)
            return None
    finally:
        if not len(room):
            rooms.pop(name, None)


async def main(address: str) -> None:
    """Serve until SIGINT or SIGTERM."""
    async with Server() as server:
        listener = await server.open("chat", address, chat, max_connections=1024)
        print("listening on", *listener.addresses, flush=True)
        await server.serve_until_signal()


if __name__ == "__main__":
    anyio.run(main, sys.argv[1])
