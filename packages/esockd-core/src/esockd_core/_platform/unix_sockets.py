"""Unix sockets as they differ between systems: names without a file, and the mode of a file."""

from __future__ import annotations

import errno
import os
import socket
import sys
from typing import Final

IS_LINUX: Final = sys.platform == "linux"
HAS_ABSTRACT_NAMES: Final = IS_LINUX
MAX_PATH_BYTES: Final = 107 if IS_LINUX else 103
"""The longest path that fits into sun_path with a closing NUL: sun_path has 108 bytes on Linux, 104 elsewhere."""


def is_bound(path: str) -> bool:
    """Whether a program holds the socket of this file, listening or not. A file that was left behind is not bound.

    It connects with another type of socket, which stream sockets refuse, so that the program does not notice.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        return probe.connect_ex(path) not in (errno.ECONNREFUSED, errno.ENOENT)


def bind_with_mode(sock: socket.socket, path: str, mode: int) -> None:
    """Bind a socket to a path, which at no moment is open to users that its final mode excludes.

    Args:
        sock: The socket, not bound yet.
        path: The path, which does not exist yet.
        mode: Permission bits of the file. Those of the owner are set at once, the others by the caller when its owner
            is set: `Path.chmod` afterwards.

    Raises:
        OSError: If the kernel refuses.
    """
    mode &= 0o600
    if IS_LINUX:
        # The file gets the mode of the socket's own inode, less the umask; other threads keep their umask.
        os.fchmod(sock.fileno(), mode)
        sock.bind(path)
    else:
        # A socket has no mode here: the umask decides, for all threads during this moment.
        umask = os.umask(0o777 & ~mode)
        try:
            sock.bind(path)
        finally:
            os.umask(umask)
