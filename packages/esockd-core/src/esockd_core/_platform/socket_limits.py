"""The kernel's limits on backlogs and buffers, which Linux applies without an error."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Final

SOMAXCONN: Final = Path("/proc/sys/net/core/somaxconn")
DOUBLES_BUFFERS: Final = sys.platform == "linux"


def backlog_limit() -> int | None:
    """The most clients that may wait to be accepted (net.core.somaxconn, listen(2)); None if unknown."""
    try:
        return int(SOMAXCONN.read_text())
    except (OSError, ValueError):
        return None


def granted_buffer_bytes(sock: socket.socket, option: int) -> int:
    """The size of the buffer that the kernel granted.

    Linux reserves twice as much for its own bookkeeping and reports that (socket(7)).

    Args:
        sock: Any socket.
        option: `SO_RCVBUF` or `SO_SNDBUF`.
    """
    told = sock.getsockopt(socket.SOL_SOCKET, option)
    return told // 2 if DOUBLES_BUFFERS else told
