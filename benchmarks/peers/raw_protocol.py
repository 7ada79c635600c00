"""Peer: the least a Python server can do on asyncio or uvloop, an `asyncio.Protocol` that writes what it is given.

`--refuse` closes every connection at once, as a server that turns everybody away would.
"""

from __future__ import annotations

import argparse
import asyncio

import uvloop

MAX_READ_BYTES = 65536  # asyncio's own 256 KiB makes every read allocate by mmap; uvloop has one buffer for all


class Echo(asyncio.Protocol):
    """Echo without backpressure."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what to write to."""
        self.transport = transport  # type: ignore[assignment] # uvloop's is no subclass of asyncio.Transport

    def data_received(self, data: bytes) -> None:
        """Write it back."""
        self.transport.write(data)


class AsyncioEcho(Echo):
    """The same with reads of a bounded size."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Bound the reads."""
        super().connection_made(transport)
        transport.max_size = MAX_READ_BYTES  # type: ignore[attr-defined]


class Refuse(asyncio.Protocol):
    """Turn everybody away."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Close at once."""
        transport.close()


async def serve(port: int, protocol: type[asyncio.Protocol]) -> None:
    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", port, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--refuse", action="store_true")
    options = parser.parse_args()
    if options.loop == "uvloop":
        uvloop.run(serve(options.port, Refuse if options.refuse else Echo))
    else:
        asyncio.run(serve(options.port, Refuse if options.refuse else AsyncioEcho))


if __name__ == "__main__":
    main()
