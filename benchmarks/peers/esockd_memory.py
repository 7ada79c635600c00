"""Ours, with handlers that would fill the memory if the listener let them; and anyio's listener beside it.

`hold` never reads, `echo` sends back what it gets, `pour` sends for ever.
"""

from __future__ import annotations

import argparse
from contextlib import suppress

import anyio
from anyio.abc import ByteStream, SocketAttribute, SocketStream

from esockd_core import CallbackHandler, Handler, StreamConnection, open_listener


def piece() -> bytes:
    """Fresh bytes each time: a loop that keeps what it is given would show nothing for a shared constant."""
    return b"x" * 65_536


async def hold(_: object) -> None:
    await anyio.sleep_forever()


async def echo(connection: ByteStream) -> None:
    async for data in connection:
        await connection.send(data)


async def pour(connection: ByteStream) -> None:
    while True:
        await connection.send(piece())


class Hold(CallbackHandler):
    """Never reads."""

    def connection_made(self, connection: StreamConnection) -> None:
        """Stop reading for good."""
        connection.pause_reading()


class Echo(CallbackHandler):
    """Sends back; that it stops reading while the client does not read is the default."""

    def data_received(self, connection: StreamConnection, data: bytes) -> None:
        """Send it back."""
        connection.send_nowait(data)


class Pour(CallbackHandler):
    """Sends until no more is taken, and goes on when there is room."""

    def connection_made(self, connection: StreamConnection) -> None:
        """Begin."""
        self.resume_writing(connection)

    def resume_writing(self, connection: StreamConnection) -> None:
        """Go on."""
        try:
            while True:
                connection.send_nowait(piece())
        except anyio.WouldBlock:
            pass


HANDLERS: dict[tuple[str, str], Handler] = {
    ("coroutine", "hold"): hold,
    ("coroutine", "echo"): echo,
    ("coroutine", "pour"): pour,
    ("callback", "hold"): Hold(),
    ("callback", "echo"): Echo(),
    ("callback", "pour"): Pour(),
}


async def serve(style: str, load: str) -> None:
    async with open_listener("memory", "127.0.0.1:0", HANDLERS[style, load], send_timeout=None) as listener:
        print(listener.port, flush=True)
        await anyio.sleep_forever()


async def serve_with_anyio(load: str) -> None:
    async def handle(stream: SocketStream) -> None:
        async with stream:
            with suppress(anyio.BrokenResourceError):  # the first reset would end this server
                await {"hold": hold, "echo": echo, "pour": pour}[load](stream)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
    print(listener.extra(SocketAttribute.local_port), flush=True)
    await listener.serve(handle)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loop", choices=["asyncio", "uvloop", "trio"], default="asyncio")
    parser.add_argument("--style", choices=["coroutine", "callback", "anyio"], default="coroutine")
    parser.add_argument("--load", choices=["hold", "echo", "pour"], default="hold")
    options = parser.parse_args()
    backend = "trio" if options.loop == "trio" else "asyncio"
    backend_options = {} if backend == "trio" else {"use_uvloop": options.loop == "uvloop"}
    if options.style == "anyio":
        anyio.run(serve_with_anyio, options.load, backend=backend, backend_options=backend_options)
    else:
        anyio.run(serve, options.style, options.load, backend=backend, backend_options=backend_options)


if __name__ == "__main__":
    main()
