"""An echo server with a fault, run as a process of its own: proof that the load client notices.

Usage: python faulty_echo_server.py FAULT, which befalls the tenth message of every connection. It prints its port and
serves until it is killed. Messages come whole, because the client sends the next one only after the echo.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

FAULTS: dict[str, Callable[[bytes, bytes], bytes | None]] = {
    "none": lambda data, _: data,
    "drops-a-byte": lambda data, _: data[:20] + data[21:],
    "drops-the-last-byte": lambda data, _: data[:-1],
    "doubles-a-byte": lambda data, _: data[:20] + data[19:],
    "changes-a-byte": lambda data, _: data[:20] + bytes([data[20] ^ 1]) + data[21:],
    "swaps-two-bytes": lambda data, _: data[1::-1] + data[2:],
    "repeats-an-older-message": lambda _, older: older,
    "adds-a-byte": lambda data, _: data + b"x",
    "swallows-a-message": lambda *_: b"",
    "closes": lambda *_: None,
}


class FaultyEcho(asyncio.Protocol):
    """Echo, until the fault is due."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.messages = 0
        self.older = b""

    def data_received(self, data: bytes) -> None:
        self.messages += 1
        reply = FAULTS[FAULT if self.messages == 10 else "none"](data, self.older)
        self.older = data
        if reply is None:
            self.transport.close()
        else:
            self.transport.write(reply)


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(FaultyEcho, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    FAULT = sys.argv[1]
    asyncio.run(main())
