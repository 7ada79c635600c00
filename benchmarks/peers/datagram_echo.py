"""UDP echo servers that are compared: asyncio's and uvloop's DatagramProtocol, AnyIO's and trio's sockets, and ours.

Ours has every admission check and counter switched on: rules, room and a rate that never bite.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

import anyio

from esockd_core import CallbackHandler, DatagramConnection, open_listener

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class EchoProtocol(asyncio.DatagramProtocol):
    """The least that a server does with the event loop's own datagrams."""

    def connection_made(self, transport: Any) -> None:
        """Keep the transport."""
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Send it back."""
        self.transport.sendto(data, addr)


async def serve_protocol(_: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    transport, _protocol = await loop.create_datagram_endpoint(EchoProtocol, local_addr=("127.0.0.1", 0))
    print(transport.get_extra_info("sockname")[1], flush=True)
    await anyio.sleep_forever()


async def serve_anyio(_: argparse.Namespace) -> None:
    async with await anyio.create_udp_socket(local_host="127.0.0.1") as udp:
        print(udp.extra(anyio.abc.SocketAttribute.local_port), flush=True)
        async for data, (host, port) in udp:
            await udp.sendto(data, host, port)


async def serve_trio(_: argparse.Namespace) -> None:
    import trio  # noqa: PLC0415

    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as udp:
        await udp.bind(("127.0.0.1", 0))
        print(udp.getsockname()[1], flush=True)
        while True:
            data, address = await udp.recvfrom(65_536)
            await udp.sendto(data, address)


async def echo(connection: DatagramConnection) -> None:
    async for datagram in connection:
        await connection.send(datagram)


class Echo(CallbackHandler[DatagramConnection]):
    """The same without a task for each peer."""

    def data_received(self, connection: DatagramConnection, data: bytes) -> None:
        """Send it back."""
        connection.send_nowait(data)


async def serve_esockd(options: argparse.Namespace) -> None:
    async with open_listener(
        "echo",
        f"udp://{options.host}:0",
        Echo() if options.server == "callback" else echo,
        max_connections=options.max_peers,
        max_conn_rate="1000000/s",
        access_rules=["deny 10.0.0.0/8", "allow 127.0.0.0/8"],
    ) as listener:
        print(listener.port, flush=True)
        await anyio.to_thread.run_sync(sys.stdin.readline)
        stats = listener.stats()
        print(json.dumps({"in": stats.datagrams_in, "dropped": stats.datagrams_dropped}), flush=True)
        await anyio.sleep_forever()


SERVERS: dict[str, Callable[[argparse.Namespace], Awaitable[None]]] = {
    "protocol": serve_protocol,
    "anyio": serve_anyio,
    "trio": serve_trio,
    "coroutine": serve_esockd,
    "callback": serve_esockd,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", choices=SERVERS, default="coroutine")
    parser.add_argument("--loop", choices=["asyncio", "uvloop", "trio"], default="asyncio")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--max-peers", type=int, default=20_000)
    options = parser.parse_args()
    if options.loop == "trio":
        anyio.run(SERVERS[options.server], options, backend="trio")
    else:
        anyio.run(SERVERS[options.server], options, backend_options={"use_uvloop": options.loop == "uvloop"})


if __name__ == "__main__":
    main()
