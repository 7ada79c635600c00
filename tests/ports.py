"""Ports that stay free until a test binds them."""

from __future__ import annotations

import errno
import os
import random
import socket
import sys
from pathlib import Path
from typing import Final

from tests.patience import PATIENCE_S

FIRST: Final = 12_000

_claims: list[socket.socket] = []  # open until this process ends, and with them the names that they are bound to
_given: set[int] = set()


def first_client_port() -> int:
    """The lowest port that the kernel gives to a client, or to who binds port 0."""
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    except FileNotFoundError:
        return 32_768


def steady_port() -> int:
    """A port that is free, that the kernel gives only to who names it, and that no other test is given.

    A port that was bound as port 0 and closed may belong to a client of another test a moment later.
    """
    last = max(first_client_port(), FIRST + 1000)
    while True:
        port = random.randrange(FIRST, last)
        if _claim(port) and _is_free(port, socket.SOCK_STREAM) and _is_free(port, socket.SOCK_DGRAM):
            return port


def _claim(port: int) -> bool:
    """Whether the port is this caller's for the life of this process.

    On Linux that holds against the test processes beside this one too: only one of them can have the abstract socket.
    """
    if port in _given:
        return False
    if sys.platform == "linux":
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0esockd-test-port-{port}")
        except OSError as error:
            claim.close()
            if error.errno != errno.EADDRINUSE:
                raise
            return False
        _claims.append(claim)
    _given.add(port)
    return True


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


def is_refused(port: int) -> bool:
    """Whether nobody listens on a port of 127.0.0.1.

    Raises:
        OSError: If a client there meets anything else.
    """
    with socket.socket() as client:
        client.settimeout(PATIENCE_S)
        error = client.connect_ex(("127.0.0.1", port))
    if error not in (0, errno.ECONNREFUSED):
        raise OSError(error, os.strerror(error))
    return error == errno.ECONNREFUSED
