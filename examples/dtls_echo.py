"""An echo server over DTLS 1.2, with a certificate or with keys that both sides know beforehand.

python examples/dtls_echo.py dtls://127.0.0.1:5000 server.pem server.key
openssl s_client -dtls1_2 -connect 127.0.0.1:5000 -quiet  # in another terminal
python examples/dtls_echo.py dtls://127.0.0.1:5000 sensor-1=00112233445566778899aabbccddeeff
"""

from __future__ import annotations

import sys
from functools import partial

import anyio

from esockd_core import DatagramConnection, DtlsOptions, Server


async def echo(connection: DatagramConnection) -> None:
    """Send back each message of one session, which is one datagram."""
    async for message in connection:
        await connection.send(message)


def read_options(words: list[str]) -> DtlsOptions:
    """The files of a certificate and its key, or IDENTITY=KEY with the key in hexadecimal digits."""
    if "=" not in words[0]:
        certfile, keyfile = words
        return DtlsOptions(certfile=certfile, keyfile=keyfile)
    pairs = (word.partition("=") for word in words)
    return DtlsOptions(psk={identity: bytes.fromhex(key) for identity, _, key in pairs})


async def main(address: str, *words: str) -> None:
    """Serve until SIGINT or SIGTERM."""
    async with Server() as server:
        listener = await server.open("echo", address, echo, dtls=read_options([*words]), handshake_timeout=10)
        print("listening on", *listener.addresses, flush=True)
        await server.serve_until_signal()


if __name__ == "__main__":
    anyio.run(partial(main, *sys.argv[1:]))
