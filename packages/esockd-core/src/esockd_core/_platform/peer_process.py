"""The process at the other end of a Unix socket, as the kernel knows it."""

from __future__ import annotations

import socket
import struct
import sys
from typing import Final, NamedTuple, Protocol

PLATFORM: Final = str(sys.platform)  # text, or mypy would take all but one for unreachable
SOL_LOCAL: Final = 0  # <sys/un.h> of macOS and FreeBSD
LOCAL_PEERCRED: Final = 1
LOCAL_PEERPID: Final = 2  # macOS
XUCRED: Final = struct.Struct("Ii")  # how struct xucred begins: its version, then the user


class HasSocketOptions(Protocol):
    """A socket, or the part of one that an event loop shows."""

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes:
        """As in `socket.socket`."""
        ...


class PeerProcess(NamedTuple):
    """The process that has connected, or that listens.

    Attributes:
        uid: Its effective user at that time.
        pid: Its process id; None if the kernel does not tell.
    """

    uid: int
    pid: int | None


def peer_process(sock: HasSocketOptions) -> PeerProcess | None:
    """The process at the other end of a Unix stream socket; None if the kernel does not tell."""
    try:
        if PLATFORM == "linux":
            pid, uid, _ = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            return PeerProcess(uid, pid or None)  # 0: of another pid namespace
        _, uid = XUCRED.unpack_from(sock.getsockopt(SOL_LOCAL, LOCAL_PEERCRED, 128))
        pid = None
        if PLATFORM == "darwin":
            [pid] = struct.unpack("i", sock.getsockopt(SOL_LOCAL, LOCAL_PEERPID, 4))
        return PeerProcess(uid, pid)
    except (AttributeError, OSError, struct.error):
        return None
