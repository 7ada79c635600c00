"""A server behind HAProxy that knows who its clients are: `proxy_protocol.cfg` sends their addresses.

python examples/proxy_protocol.py 5001
haproxy -f examples/proxy_protocol.cfg  # listens on port 5000
nc 127.0.0.1 5000  # in another terminal
"""

from __future__ import annotations

import sys

import anyio

from esockd_core import Connection, ProxyOptions, Server

PROXIES = ["127.0.0.1", "::1"]  # who else comes directly is refused before it can send a byte


async def who_are_you(connection: Connection) -> None:
    """Tell a client its address, and how it came."""
    client, proxy = connection.peername, connection.socket_peername
    await connection.send(f"you are {client[0]}, by way of {proxy[0]}\n".encode())


async def main(address: str) -> None:
    """Serve until SIGINT or SIGTERM."""
    async with Server() as server:
        listener = await server.open(
            "who",
            address,
            who_are_you,
            proxy_protocol=ProxyOptions(trusted=PROXIES, header_timeout=3),
            access_rules=["deny 203.0.113.0/24"],  # rules judge the client, and not the proxy
            max_connections_per_source=10,
        )
        print("listening on", *listener.addresses, flush=True)
        await server.serve_until_signal()


if __name__ == "__main__":
    anyio.run(main, sys.argv[1])
