"""The memory and descriptors that this process uses, as far as the system tells."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

STATM: Final = Path("/proc/self/statm")
# Lists the open descriptors of this process. Without fdescfs(5), that of BSD lists three whatever is open.
OPEN_FILES: Final = {"linux": "/proc/self/fd", "darwin": "/dev/fd"}.get(sys.platform)


def memory_bytes() -> int | None:
    """Resident memory (proc_pid_statm(5)); None if /proc does not tell."""
    try:
        return int(STATM.read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def open_file_count() -> int | None:
    """The number of open file descriptors; None if counting is impossible or itself needs one."""
    if OPEN_FILES is None:
        return None
    try:
        # proc_pid_fd(5): the size is their number, since Linux 6.2; before, it is 0.
        if OPEN_FILES == "/proc/self/fd" and (number := os.stat(OPEN_FILES).st_size):  # noqa: PTH116 (a tenth of the cost)
            return number
        return len(os.listdir(OPEN_FILES)) - 1  # noqa: PTH208 (as above; one is that of the listing)
    except OSError:
        return None
