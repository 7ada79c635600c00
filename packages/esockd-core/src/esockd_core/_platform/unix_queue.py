"""The accept queue of a Unix socket on Linux. No socket option tells it, but sock_diag(7) does, as for ss(8)."""

from __future__ import annotations

import os
import socket
import struct
from typing import Final

NETLINK_SOCK_DIAG: Final = 4  # linux/netlink.h
SOCK_DIAG_BY_FAMILY: Final = 20  # linux/sock_diag.h
NLM_F_REQUEST: Final = 1  # linux/netlink.h
EVERY_STATE: Final = 2**32 - 1
ANY_COOKIE: Final = 2**64 - 1
UDIAG_SHOW_RQLEN: Final = 0x10  # linux/unix_diag.h, as is the next
UNIX_DIAG_RQLEN: Final = 4
# struct nlmsghdr (length, type, flags, sequence, port) and unix_diag_req (family, protocol, padding, states, inode,
# what to show, cookie).
REQUEST: Final = struct.Struct("=IHHIIBBHIIIQ")
# nlmsghdr (its type is what counts), 16 bytes of unix_diag_msg, and one attribute: length, type, unix_diag_rqlen.
ANSWER: Final = struct.Struct("=4xH10x16x2xHII")


def unix_accept_queue(listening: socket.socket) -> tuple[int, int] | None:
    """Length and limit of the accept queue; None if the kernel does not tell.

    It needs a descriptor for a moment, and a kernel with `unix_diag` in the same network namespace as the socket.
    """
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as netlink:
            netlink.setblocking(False)  # the kernel answers within the system call
            netlink.send(_request(os.fstat(listening.fileno()).st_ino))
            answer = netlink.recv(4096)
    except OSError:
        return None
    if len(answer) < ANSWER.size:
        return None  # an error: there is no such socket here
    kind, attribute, length, limit = ANSWER.unpack_from(answer)
    return (length, limit) if (kind, attribute) == (SOCK_DIAG_BY_FAMILY, UNIX_DIAG_RQLEN) else None


def _request(inode: int) -> bytes:
    return REQUEST.pack(
        REQUEST.size, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 0, 0,
        socket.AF_UNIX, 0, 0, EVERY_STATE, inode, UDIAG_SHOW_RQLEN, ANY_COOKIE,
    )  # fmt: skip
