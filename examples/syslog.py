"""A syslog receiver over UDP (RFC 5426), TCP (RFC 6587) and TLS (RFC 5425) that writes each message as a line of JSON.

python examples/syslog.py udp://127.0.0.1:5514 127.0.0.1:5514  # and: tls://127.0.0.1:6514 server.pem server.key
logger --server 127.0.0.1 --port 5514 --udp 'the hall is warm'
logger --server 127.0.0.1 --port 5514 --tcp --octet-count 'and so is the attic'
"""

from __future__ import annotations

import json
import re
import sys
from contextlib import suppress
from functools import partial

import anyio

from esockd_core import Connection, DatagramConnection, Server, StreamConnection, TlsOptions

LONGEST = 8192  # RFC 5425 section 4.3.1 asks for this much
PRIORITY = re.compile(rb"<(\d{1,3})>(.*)", re.DOTALL)
SEVERITIES = ("emergency", "alert", "critical", "error", "warning", "notice", "info", "debug")


def write(connection: Connection, message: bytes) -> None:
    """Write a message. What has no priority is a notice of a user (RFC 3164 section 4.3.3)."""
    found = PRIORITY.match(message)
    priority, text = (int(found[1]), found[2]) if found else (13, message)
    line = {
        "client": connection.peername[0],
        "facility": priority >> 3,
        "severity": SEVERITIES[priority & 7],
        "message": text.decode(errors="replace").strip("\n\x00 "),
    }
    print(json.dumps(line), flush=True)


async def receive_datagrams(connection: DatagramConnection) -> None:
    """A datagram is a message."""
    async for message in connection:
        write(connection, message)


async def receive_stream(connection: StreamConnection) -> None:
    """A message follows its length, or ends with its line: the first byte tells which (RFC 6587 section 3.4)."""
    while first := await connection.receive_exactly(1):
        if not first.isdigit():
            rest = await connection.receive_until(b"\n", LONGEST, mid_message=True)
            write(connection, first + rest)
            continue
        length = first + await connection.receive_until(b" ", 5, mid_message=True)
        if not length.isdigit() or int(length) > LONGEST:
            return
        write(connection, await connection.receive_exactly(int(length), mid_message=True))


async def serve_stream(connection: StreamConnection) -> None:
    """Receive until the client leaves."""
    with suppress(anyio.EndOfStream):
        await receive_stream(connection)


async def main(words: list[str]) -> None:
    """Serve until SIGINT or SIGTERM."""
    addresses = [word for word in words if word.startswith(("udp:", "tls:")) or word.rpartition(":")[2].isdigit()]
    files = words[len(addresses) :]
    tls = TlsOptions(certfile=files[0], keyfile=files[1]) if files else None
    async with Server() as server:
        for address in addresses:
            open_one = partial(server.open, "syslog", address, max_connections=2000, idle_timeout=3600)
            if address.startswith("udp:"):
                listener = await open_one(receive_datagrams)
            elif address.startswith("tls:"):
                listener = await open_one(serve_stream, tls=tls)
            else:
                listener = await open_one(serve_stream)
            print("listening on", *listener.addresses, flush=True)
        await server.serve_until_signal()


if __name__ == "__main__":
    anyio.run(main, sys.argv[1:])
