"""Echo over DTLS, by ours or by trio's DTLSEndpoint. Prints its port; ours prints what it has counted when asked."""

from __future__ import annotations

import argparse
import json
import sys

import anyio
import trio
from OpenSSL import SSL

from esockd_core import CallbackHandler, DatagramConnection, Dropped, DtlsOptions, open_listener

HOST = "127.0.0.1"


async def echo(connection: DatagramConnection) -> None:
    async for message in connection:
        await connection.send(message)


class Echo(CallbackHandler[DatagramConnection]):
    """Without a task for each peer."""

    def data_received(self, connection: DatagramConnection, data: bytes) -> None:
        """Send it back."""
        connection.send_nowait(data)


async def serve_esockd(options: argparse.Namespace) -> None:
    handler = Echo() if options.style == "callback" else echo
    async with open_listener(
        "echo",
        f"dtls://{HOST}:0",
        handler,
        dtls=DtlsOptions(certfile=options.certfile),
        max_connections=4_000,
        max_handshaking=4_000,
        idle_timeout=600,
    ) as listener:
        print(listener.port, flush=True)
        while await anyio.to_thread.run_sync(sys.stdin.readline):
            stats = listener.stats()
            overflow = stats.datagrams_dropped.get(Dropped.KERNEL_OVERFLOW, 0)
            print(json.dumps({"answered": stats.datagrams_answered, "overflow": overflow}), flush=True)
        await anyio.sleep_forever()


async def serve_trio(options: argparse.Namespace) -> None:
    async def answer(channel: trio.DTLSChannel) -> None:
        async for message in channel:
            await channel.send(message)

    context = SSL.Context(SSL.DTLS_METHOD)
    context.use_certificate_chain_file(options.certfile)
    context.use_privatekey_file(options.certfile)
    sock = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
    await sock.bind((HOST, 0))
    with trio.DTLSEndpoint(sock) as endpoint:
        print(sock.getsockname()[1], flush=True)
        await endpoint.serve(context, answer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--by", choices=["esockd", "trio"], default="esockd")
    parser.add_argument("--loop", choices=["asyncio", "uvloop", "trio"], default="asyncio")
    parser.add_argument("--style", choices=["coroutine", "callback"], default="coroutine")
    parser.add_argument("--certfile", required=True)
    options = parser.parse_args()
    if options.by == "trio":
        trio.run(serve_trio, options)
    elif options.loop == "trio":
        anyio.run(serve_esockd, options, backend="trio")
    else:
        anyio.run(serve_esockd, options, backend_options={"use_uvloop": options.loop == "uvloop"})


if __name__ == "__main__":
    main()
