"""How many datagrams the kernel dropped at a socket."""

from __future__ import annotations

import socket
import struct
import sys
from typing import Final

# SO_MEMINFO of asm-generic/socket.h, Linux 4.12 and later: nine 32-bit words, the last of them SK_MEMINFO_DROPS of
# linux/sock_diag.h. It costs the datagrams nothing. SO_RXQ_OVFL tells the same number, but with each datagram, in
# ancillary data that only recvmsg(2) takes, and so never about the last ones.
SO_MEMINFO: Final = 55
MEMINFO: Final = struct.Struct("=9I")
HAS_MEMINFO: Final = sys.platform == "linux"


def dropped_datagrams(sock: socket.socket) -> int | None:
    """Datagrams that came for a socket since it was opened and that the kernel dropped, modulo 2**32.

    Most did not fit into its receive buffer; others had a wrong checksum.

    Returns:
        The number; None for a closed socket, or if the kernel does not tell.
    """
    if not HAS_MEMINFO:
        return None
    try:
        told = sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, MEMINFO.size)
    except OSError:
        return None
    return int(MEMINFO.unpack(told)[8]) if len(told) == MEMINFO.size else None
