"""Peer: `anyio.create_tcp_listener` and its `serve`, on asyncio, uvloop or trio.

On asyncio every receive costs an allocation of 256 KiB, whatever size it asks for: that is asyncio's own bound, which
anyio offers no way to change. `--bounded-reads` changes it from outside, to compare equals.
"""

from __future__ import annotations

import argparse
import asyncio.selector_events

import anyio
from anyio.abc import SocketAttribute, SocketStream

MAX_READ_BYTES = 65536


async def echo(stream: SocketStream) -> None:
    async with stream:
        try:
            while True:
                await stream.send(await stream.receive(MAX_READ_BYTES))
        except anyio.EndOfStream:
            pass


async def serve(port: int) -> None:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=port, backlog=1024)
    print(listener.extra(SocketAttribute.local_port), flush=True)
    await listener.serve(echo)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loop", choices=["asyncio", "uvloop", "trio"], default="asyncio")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--bounded-reads", action="store_true", help=f"asyncio reads {MAX_READ_BYTES} bytes at most")
    options = parser.parse_args()
    if options.bounded_reads:
        asyncio.selector_events._SelectorTransport.max_size = MAX_READ_BYTES  # type: ignore[attr-defined] # noqa: SLF001
    if options.loop == "trio":
        anyio.run(serve, options.port, backend="trio")
    else:
        anyio.run(serve, options.port, backend_options={"use_uvloop": options.loop == "uvloop"})


if __name__ == "__main__":
    main()
