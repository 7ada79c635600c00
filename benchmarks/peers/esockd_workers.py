"""Ours with worker processes: echo, a handler that computes, or a forwarder. A line on stdin: what each accepted."""

from __future__ import annotations

import argparse
import json
import socket
import sys
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread

from esockd_core import Handler, ListenerOptions, TcpOptions
from esockd_core.handlers import ForwardHandler
from esockd_core.workers import WorkerListener, Workers

if TYPE_CHECKING:
    from esockd_core import StreamConnection

OWN_MODULE: Final = "esockd_workers"  # as workers import this file
BACKLOG: Final = 4096
ROUNDS: Final = 10_000  # about half a millisecond
FRESH_S: Final = 2  # the parent asks its workers once a second


async def burn(connection: StreamConnection) -> None:
    """Compute for each message, then echo it."""
    async for data in connection:
        total = 0
        for number in range(ROUNDS):
            total += number
        await connection.send(data)


def forward(upstream: str) -> Handler:
    """A forwarder, made in each worker."""
    return ForwardHandler(upstream)


async def serve(options: argparse.Namespace) -> None:
    shared = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG) if options.shared else None
    handler = {"echo": "esockd_core.handlers:echo", "burn": f"{OWN_MODULE}:burn"}.get(options.style)
    listener = WorkerListener(
        name="bench",
        address="127.0.0.1:0" if shared is None else f"fd:{shared.fileno()}",
        handler=handler or f"{OWN_MODULE}:forward",
        handler_arguments=None if handler else (f"127.0.0.1:{options.to}",),
        options=ListenerOptions(max_connections=None, tcp=TcpOptions(backlog=BACKLOG)),
    )
    async with Workers([listener], count=options.workers, loop=options.loop) as workers:
        (control,) = workers.listeners()
        print((await control.get_status()).port, flush=True)
        while await anyio.to_thread.run_sync(sys.stdin.readline):
            await anyio.sleep(FRESH_S)
            counts = [each.listeners[0].stats.accepted for each in workers.workers()]
            print(json.dumps(counts), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loop", choices=["asyncio", "uvloop", "trio"], default="uvloop")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--style", choices=["echo", "burn", "forward"], default="echo")
    parser.add_argument("--to", type=int, default=0, help="port of the upstream on 127.0.0.1")
    parser.add_argument("--shared", action="store_true", help="let all workers accept on one socket")
    anyio.run(serve, parser.parse_args())


if __name__ == "__main__":
    main()
