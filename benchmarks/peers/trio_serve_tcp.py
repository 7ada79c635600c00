"""Peer: `trio.serve_tcp`."""

from __future__ import annotations

import argparse
from functools import partial

import trio

MAX_READ_BYTES = 65536


async def echo(stream: trio.SocketStream) -> None:
    while data := await stream.receive_some(MAX_READ_BYTES):
        await stream.send_all(data)


async def serve(port: int) -> None:
    async with trio.open_nursery() as nursery:
        listeners: list[trio.SocketListener] = await nursery.start(
            partial(trio.serve_tcp, echo, port, host="127.0.0.1", backlog=1024)
        )
        print(listeners[0].socket.getsockname()[1], flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    trio.run(serve, parser.parse_args().port)


if __name__ == "__main__":
    main()
