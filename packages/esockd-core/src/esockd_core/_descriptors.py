"""How many file descriptors are free, for an accept path that cannot see them run out."""

from __future__ import annotations

import os
from typing import Final

import anyio

from esockd_core._limits import open_file_limit

SCARCE: Final = 96  # free descriptors: uvloop may accept about 50 in one pass, and closes refused ones in the next
PLENTY: Final = 2 * SCARCE
LOOK_EVERY_S: Final = 1.0
OPEN_FILES: Final = "/proc/self/fd"


def free_descriptors() -> int:
    """Descriptors this process may still open; 0 where that cannot be told, or only with a descriptor more."""
    limit = open_file_limit()
    if limit is None:
        return PLENTY
    try:
        # proc_pid_fd(5): the size is the number of open descriptors, since Linux 6.2; before, it is 0.
        used = os.stat(OPEN_FILES).st_size or len(os.listdir(OPEN_FILES))  # noqa: PTH116, PTH208 (a tenth of the cost)
    except OSError:
        return 0
    return max(0, limit - used)


class DescriptorWatch:
    """Says when descriptors become scarce, looking less often the more are free.

    Counting them may cost time in proportion to those in use, so each look buys accepts in proportion to the free ones:
    few enough that handlers may open three descriptors more for each.

    Attributes:
        accepts_until_look: Counted down by the accept path; `look` is due at 0.
        scarce: Set once fewer than `SCARCE` are free.
    """

    def __init__(self) -> None:
        self.accepts_until_look = 0
        self.scarce = anyio.Event()

    def look(self) -> None:
        """Count the free descriptors, which others in this process open as well."""
        free = free_descriptors()
        self.accepts_until_look = (free - SCARCE) // 4
        if free < SCARCE:
            self.scarce.set()


async def wait_until_plenty() -> None:
    """Return once at least `PLENTY` are free: the kernel tells nobody, so look once a second."""
    while free_descriptors() < PLENTY:  # noqa: ASYNC110
        await anyio.sleep(LOOK_EVERY_S)
