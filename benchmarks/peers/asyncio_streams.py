"""Peer: `asyncio.start_server` with a StreamReader and a StreamWriter, on asyncio or uvloop."""

from __future__ import annotations

import argparse
import asyncio

import uvloop

MAX_READ_BYTES = 65536


async def echo_asyncio(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.max_size = MAX_READ_BYTES  # type: ignore[attr-defined] # asyncio's own 256 KiB allocates by mmap
    await echo(reader, writer)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(MAX_READ_BYTES):
        writer.write(data)
        await writer.drain()
    writer.close()


async def serve(port: int, *, own_loop: bool) -> None:
    server = await asyncio.start_server(echo_asyncio if own_loop else echo, "127.0.0.1", port, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    if options.loop == "uvloop":
        uvloop.run(serve(options.port, own_loop=False))
    else:
        asyncio.run(serve(options.port, own_loop=True))


if __name__ == "__main__":
    main()
