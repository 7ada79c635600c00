"""The kernel's queues of a socket: bytes that the peer has not acknowledged, and clients that were not accepted."""

from __future__ import annotations

import fcntl
import socket
import struct
import sys
import termios
from typing import TYPE_CHECKING, Final

from esockd_core._platform.unix_queue import unix_accept_queue

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

# The ioctl(2) that tells the bytes in a send queue. Linux: SIOCOUTQ of linux/sockios.h, with the number of TIOCOUTQ.
# FreeBSD and NetBSD: FIONWRITE of sys/filio.h, _IOR('f', 119, int) and _IOR('f', 121, int).
SEND_QUEUE_IOCTLS: Final = {"linux": termios.TIOCOUTQ, "freebsd": 0x4004_6677, "netbsd": 0x4004_6679}
SEND_QUEUE_IOCTL: Final = SEND_QUEUE_IOCTLS.get(sys.platform.rstrip("0123456789"))
SO_NWRITE: Final = 0x1024  # sys/socket.h of macOS, which has a socket option instead
AN_INT: Final = bytes(4)

# tcp(7), struct tcp_info of linux/tcp.h: eight bytes, then 32-bit words, of which a listening socket uses two for its
# queue (net/ipv4/tcp.c, tcp_get_info): tcpi_unacked is its length, tcpi_sacked its limit.
TCP_INFO_QUEUE: Final = struct.Struct("=8x4x4x4x4xII")
HAS_LINUX_TCP_INFO: Final = sys.platform == "linux"  # others have a TCP_INFO of their own

KNOWS_UNDELIVERED: Final = SEND_QUEUE_IOCTL is not None or sys.platform == "darwin"
"""Whether `undelivered_bytes` can tell. If not, it always returns 0."""


def undelivered_bytes(sock: FileDescriptorLike, /) -> int:
    """Bytes in this kernel's send queue of a connected socket that the peer has not acknowledged.

    For a TCP socket these are bytes of the stream, and one more while the end of the stream (FIN) is not acknowledged
    (tcp(7), SIOCOUTQ). For a Unix socket on Linux it is the memory of everything that the peer has not read: more than
    the bytes themselves, less with each message or piece that is read, and 0 once all is read.

    Args:
        sock: A socket or its descriptor.

    Returns:
        0 for a socket that is closed or not connected, and on systems that do not tell (`KNOWS_UNDELIVERED`).
    """
    try:
        if SEND_QUEUE_IOCTL is not None:
            return int.from_bytes(fcntl.ioctl(sock, SEND_QUEUE_IOCTL, AN_INT), sys.byteorder)
        return _ask_macos(sock) if KNOWS_UNDELIVERED else 0
    except (OSError, ValueError):  # closed (-1 is a ValueError), or no connected stream
        return 0


def unread_bytes(sock: FileDescriptorLike, /) -> int:
    """Bytes in this kernel's receive queue that were not read (tcp(7), FIONREAD); 0 for a closed socket."""
    try:
        return int.from_bytes(fcntl.ioctl(sock, termios.FIONREAD, AN_INT), sys.byteorder)
    except (OSError, ValueError):
        return 0


def _ask_macos(sock: FileDescriptorLike) -> int:
    descriptor = sock if isinstance(sock, int) else sock.fileno()
    if descriptor < 0:
        return 0
    # A second object for the same descriptor, which `detach` makes it forget: the first may be a transport's.
    known = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=descriptor)
    try:
        return known.getsockopt(socket.SOL_SOCKET, SO_NWRITE)
    finally:
        known.detach()


def accept_queue(listening: socket.socket) -> tuple[int, int] | None:
    """How many clients wait at a listening socket to be accepted, and how many may.

    Returns:
        Both numbers. None if the kernel does not tell: on systems other than Linux, and for a Unix socket if
        sock_diag(7) is missing or out of reach.
    """
    if not HAS_LINUX_TCP_INFO:
        return None
    if listening.family == socket.AF_UNIX:
        return unix_accept_queue(listening)
    info = listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_QUEUE.size)
    length, limit = TCP_INFO_QUEUE.unpack(info)
    return length, limit
