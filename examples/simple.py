"""An echo server with limits: how many may be connected, how many may come in a second, and who.

python examples/simple.py 5000
nc 127.0.0.1 5000  # in another terminal
esockd bench 5000  # as much as it takes
"""

from __future__ import annotations

import sys

import anyio

from esockd_core import Connection, Server


async def echo(connection: Connection) -> None:
    """Send everything back, until the client leaves or the server comes to its end."""
    with connection.until_draining():
        async for data in connection:
            await connection.send(data)


async def main(address: str) -> None:
    """Serve until SIGINT or SIGTERM."""
    async with Server() as server:
        listener = await server.open(
            "echo",
            address,
            echo,
            max_connections=1024,
            max_conn_rate="5000/s",
            access_rules=["deny 192.168.1.1", "allow 192.168.1.0/24", "allow 127.0.0.0/8", "allow ::1", "deny all"],
        )
        print("listening on", *listener.addresses, flush=True)
        await server.serve_until_signal()


if __name__ == "__main__":
    anyio.run(main, sys.argv[1])
