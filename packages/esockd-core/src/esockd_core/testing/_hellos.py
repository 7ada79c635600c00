"""A flood of DTLS hellos, as an attacker sends them in the name of others."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Final

from esockd_core._address import parse_address

if TYPE_CHECKING:
    from esockd_core.testing._clients import ListenerAddress

SUITES: Final = b"\xc0\x2b\xc0\x2c\xc0\xa8"
EXTENSIONS: Final = b"\x00\x0a\x00\x04\x00\x02\x00\x17" + b"\x00\x17\x00\x00"  # secp256r1, extended master secret


def send_false_hellos(address: ListenerAddress, count: int) -> None:
    """Send this many DTLS hellos, each from a port of its own that takes no answer.

    Nothing waits for the listener, so the kernel drops what does not fit into its buffer.
    """
    place = parse_address(address)
    host = place.host or "127.0.0.1"
    for _ in range(count):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(_hello(), (host, place.port or 0))


def _hello() -> bytes:
    """A first ClientHello of DTLS 1.2 (RFC 6347 section 4.2.2)."""
    suites = len(SUITES).to_bytes(2, "big") + SUITES
    body = (
        b"\xfe\xfd"
        + os.urandom(32)
        + b"\0"
        + b"\0"
        + suites
        + b"\1\0"
        + len(EXTENSIONS).to_bytes(2, "big")
        + EXTENSIONS
    )
    length = len(body).to_bytes(3, "big")
    message = b"\1" + length + b"\0\0" + bytes(3) + length + body
    return b"\x16\xfe\xff" + bytes(8) + len(message).to_bytes(2, "big") + message
