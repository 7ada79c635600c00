"""Peer: a forwarder as one writes it with AnyIO's own listener and streams, two tasks a connection."""

from __future__ import annotations

import argparse
import asyncio.selector_events

import anyio
from anyio.abc import SocketAttribute, SocketStream

MAX_READ_BYTES = 65536


async def copy(source: SocketStream, sink: SocketStream) -> None:
    try:
        while True:
            await sink.send(await source.receive(MAX_READ_BYTES))
    except anyio.EndOfStream:
        await sink.send_eof()


async def serve(to: int) -> None:
    async def forward(client: SocketStream) -> None:
        async with client, await anyio.connect_tcp("127.0.0.1", to) as upstream, anyio.create_task_group() as tasks:
            tasks.start_soon(copy, client, upstream)
            tasks.start_soon(copy, upstream, client)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", backlog=1024)
    print(listener.extra(SocketAttribute.local_port), flush=True)
    await listener.serve(forward)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loop", choices=["asyncio", "uvloop", "trio"], default="asyncio")
    parser.add_argument("--to", type=int, required=True, help="port of the upstream on 127.0.0.1")
    options = parser.parse_args()
    # asyncio allocates 256 KiB for a read, and AnyIO has no way to change that: from outside, to compare equals.
    asyncio.selector_events._SelectorTransport.max_size = MAX_READ_BYTES  # type: ignore[attr-defined] # noqa: SLF001
    if options.loop == "trio":
        anyio.run(serve, options.to, backend="trio")
    else:
        anyio.run(serve, options.to, backend_options={"use_uvloop": options.loop == "uvloop"})


if __name__ == "__main__":
    main()
