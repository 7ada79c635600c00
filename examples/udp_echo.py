"""An echo server for datagrams: each peer is a connection, which ends when nothing comes from it for a while.

python examples/udp_echo.py udp://127.0.0.1:5000
nc -u 127.0.0.1 5000  # in another terminal
esockd bench udp://127.0.0.1:5000 --rate 1000/s
"""

from __future__ import annotations

import sys

import anyio

from esockd_core import DatagramConnection, Server, UdpOptions


async def echo(connection: DatagramConnection) -> None:
    """Send back each datagram of one peer."""
    async for datagram in connection:
        await connection.send(datagram)


async def main(address: str) -> None:
    """Serve until SIGINT or SIGTERM."""
    udp = UdpOptions(idle_timeout=30, queue_datagrams=64, max_packet_rate_per_peer="20000/s")
    async with Server() as server:
        listener = await server.open("echo", address, echo, udp=udp, max_connections=10_000)
        print("listening on", *listener.addresses, flush=True)
        await server.serve_until_signal()


if __name__ == "__main__":
    anyio.run(main, sys.argv[1])
