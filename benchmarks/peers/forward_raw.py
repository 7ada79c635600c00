"""Peer: the least a Python forwarder can do on asyncio or uvloop, two `asyncio.Protocol`s that write to each other."""

from __future__ import annotations

import argparse
import asyncio

import uvloop

MAX_READ_BYTES = 65536  # asyncio's own 256 KiB makes every read allocate by mmap; uvloop has one buffer for all


class Side(asyncio.Protocol):
    """One side. What comes before there is another waits for it."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.other: Side | None = None
        self.early = b""
        self.has_finished = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what to write to."""
        self.transport = transport  # type: ignore[assignment] # uvloop's is no subclass of asyncio.Transport
        if isinstance(transport, asyncio.Transport):
            transport.max_size = MAX_READ_BYTES  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        """Write it to the other."""
        if self.other is None:
            self.early += data
        else:
            self.other.transport.write(data)

    def eof_received(self) -> bool:
        """Pass it on; close both after the second."""
        self.has_finished = True
        if self.other is not None:
            self.other.transport.write_eof()
            if self.other.has_finished:
                self.transport.close()
                self.other.transport.close()
        return True

    def pause_writing(self) -> None:
        """Stop the other."""
        if self.other is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        """Let the other go on."""
        if self.other is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Take the other along."""
        if self.other is not None:
            self.other.transport.close()


class Client(Side):
    """The side that was accepted. It connects the other."""

    def __init__(self, loop: asyncio.AbstractEventLoop, to: int) -> None:
        super().__init__()
        self.loop = loop
        self.to = to

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to connect."""
        super().connection_made(transport)
        self.task = self.loop.create_task(self.connect())

    async def connect(self) -> None:
        """Connect, and pass on what came meanwhile."""
        _, upstream = await self.loop.create_connection(Side, "127.0.0.1", self.to)
        upstream.other, self.other = self, upstream
        if self.early:
            upstream.transport.write(self.early)
        if self.has_finished:
            upstream.transport.write_eof()


async def serve(to: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Client(loop, to), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    parser.add_argument("--to", type=int, required=True, help="port of the upstream on 127.0.0.1")
    options = parser.parse_args()
    if options.loop == "uvloop":
        uvloop.run(serve(options.to))
    else:
        asyncio.run(serve(options.to))


if __name__ == "__main__":
    main()
