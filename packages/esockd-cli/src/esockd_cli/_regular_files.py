"""Reading a file of a bounded size, which a pipe or a device is not: it could hold up everybody, or never end."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def read_regular_file(path: str | Path, max_bytes: int) -> bytes:
    """Read a whole file without waiting for anybody.

    Args:
        path: The file.
        max_bytes: The most that it may hold, in whole MiB.

    Raises:
        OSError: It cannot be read, is a pipe or a device, or holds more.
    """
    with open(path, "rb", opener=_open_at_once) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is a pipe or a device, not a file")
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"it holds more than {max_bytes >> 20} MiB")
    return content


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)
