"""Echo over TLS, by one of: ours, AnyIO's TLSStream, asyncio's own TLS. Prints its port."""

from __future__ import annotations

import argparse
import asyncio
import ssl

import anyio
from anyio.streams.tls import TLSListener

from esockd_core import CallbackHandler, StreamConnection, TlsOptions, open_listener

HOST = "127.0.0.1"


async def echo(stream: anyio.abc.ByteStream) -> None:
    try:
        async for data in stream:
            await stream.send(data)
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        pass


class Echo(CallbackHandler):
    """Without a task for each connection."""

    def data_received(self, connection: StreamConnection, data: bytes) -> None:
        """Write it back."""
        connection.send_nowait(data)


class RawEcho(asyncio.Protocol):
    """As bare as asyncio's TLS can be served."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Write it back."""
        self.transport.write(data)  # type: ignore[attr-defined] # of a stream


async def serve_esockd(options: argparse.Namespace) -> None:
    handler = Echo() if options.style == "callback" else echo
    tls = TlsOptions(certfile=options.certfile)
    async with open_listener(
        "echo",
        f"tls://{HOST}:0",
        handler,
        tls=tls,
        max_connections=8_000,
        max_handshaking=4_000,
        max_conn_rate="1000000/s",
    ) as listener:
        print(listener.port, flush=True)
        await anyio.sleep_forever()


def context_of(options: argparse.Namespace) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options.certfile)
    return context


async def serve_anyio(options: argparse.Namespace) -> None:
    plain = await anyio.create_tcp_listener(local_host=HOST)
    print(plain.extra(anyio.abc.SocketAttribute.local_port), flush=True)
    await TLSListener(plain, context_of(options), standard_compatible=False).serve(echo)


async def serve_asyncio(options: argparse.Namespace) -> None:
    server = await asyncio.get_running_loop().create_server(RawEcho, HOST, 0, ssl=context_of(options))
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--by", choices=["esockd", "anyio", "asyncio"], default="esockd")
    parser.add_argument("--loop", choices=["asyncio", "uvloop", "trio"], default="asyncio")
    parser.add_argument("--style", choices=["coroutine", "callback"], default="coroutine")
    parser.add_argument("--certfile", required=True)
    options = parser.parse_args()
    serve = {"esockd": serve_esockd, "anyio": serve_anyio, "asyncio": serve_asyncio}[options.by]
    if options.loop == "trio":
        anyio.run(serve, options, backend="trio")
    else:
        anyio.run(serve, options, backend_options={"use_uvloop": options.loop == "uvloop"})


if __name__ == "__main__":
    main()
