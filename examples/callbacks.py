"""An echo server by callbacks, which take no task for a connection: the quickest way there is.

python examples/callbacks.py 5000
nc 127.0.0.1 5000  # in another terminal
esockd bench 5000 --connections 1000
"""

from __future__ import annotations

import sys

import anyio

from esockd_core import CallbackHandler, Server, StreamConnection


class Echo(CallbackHandler[StreamConnection]):
    """Serves all connections. While a client does not read, `pause_writing` stops reading from it."""

    def data_received(self, connection: StreamConnection, data: bytes) -> None:
        """Send back what has come."""
        connection.send_nowait(data)


async def main(address: str) -> None:
    """Serve until SIGINT or SIGTERM."""
    async with Server() as server:
        listener = await server.open("echo", address, Echo(), max_connections=10_000)
        print("listening on", *listener.addresses, flush=True)
        await server.serve_until_signal()


if __name__ == "__main__":
    anyio.run(main, sys.argv[1])
