"""Ports that stay free until a test binds them."""

from __future__ import annotations

import errno
import os
import random
import socket
from pathlib import Path
from typing import Final

FIRST: Final = 12_000
NUMBERS: Final = random.Random(os.getpid())  # test processes that run side by side take different ports


def first_client_port() -> int:
    """The lowest port that the kernel gives to a client, or to who binds port 0."""
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    except FileNotFoundError:
        return 32_768


def steady_port() -> int:
    """A port of this machine that is free, and that the kernel gives to nobody who does not name it.

    A port that was bound as port 0 and closed may belong to a client of another test a moment later.
    """
    last = max(first_client_port(), FIRST + 1000)
    while True:
        port = NUMBERS.randrange(FIRST, last)
        if _is_free(port, socket.SOCK_STREAM) and _is_free(port, socket.SOCK_DGRAM):
            return port


def _is_free(port: int, kind: socket.SocketKind) -> bool:
    with socket.socket(socket.AF_INET, kind) as probe:
        try:
            probe.bind(("", port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return False
    return True


def steady_address() -> str:
    """An address on the loopback with a port as `steady_port` gives it."""
    return f"127.0.0.1:{steady_port()}"
