"""An echo server over TLS, which tells each client what they agreed on, and asks it for a certificate if there is a CA.

python examples/tls_echo.py tls://5000 server.pem server.key [clients-ca.pem]
openssl s_client -connect localhost:5000 -quiet  # in another terminal
kill -HUP PID  # reads certificate and key again; connections go on
"""

from __future__ import annotations

import signal
import sys
from functools import partial

import anyio

from esockd_core import InvalidOption, Listener, Server, StreamConnection, TlsOptions


async def echo(connection: StreamConnection) -> None:
    """Tell what TLS has found out, and send everything back."""
    if (tls := connection.tls) is not None:
        who = "somebody" if tls.peer_certificate is None else tls.peer_certificate.subject
        await connection.send(f"{tls.version} {tls.cipher} with {who}\n".encode())
    with connection.until_draining():
        async for data in connection:
            await connection.send(data)


async def read_again(listener: Listener) -> None:
    """Read certificate and key again at each SIGHUP."""
    with anyio.open_signal_receiver(signal.SIGHUP) as signals:
        async for _ in signals:
            try:
                await listener.set_tls()
            except InvalidOption as error:
                print("the certificate stays:", error, flush=True)
            else:
                print("the certificate was read again", flush=True)


async def main(address: str, certfile: str, keyfile: str, *client_ca: str) -> None:
    """Serve until SIGINT or SIGTERM."""
    tls = TlsOptions(certfile=certfile, keyfile=keyfile, client_ca=next(iter(client_ca), None), minimum_version="1.2")
    async with Server() as server, anyio.create_task_group() as group:
        listener = await server.open("echo", address, echo, tls=tls, handshake_timeout=5)
        print("listening on", *listener.addresses, flush=True)
        group.start_soon(read_again, listener)
        await server.serve_until_signal()
        group.cancel_scope.cancel()


if __name__ == "__main__":
    anyio.run(partial(main, *sys.argv[1:]))
