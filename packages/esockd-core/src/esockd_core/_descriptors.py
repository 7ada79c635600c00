"""How many file descriptors are free, for an accept path that cannot see them run out."""

from __future__ import annotations

import os
from typing import Final

import anyio

from esockd_core._limits import open_file_limit

SCARCE: Final = 96  # free descriptors: uvloop may accept about 50 in one pass, and closes refused ones in the next
PLENTY: Final = 2 * SCARCE
LOOK_EVERY_S: Final = 1.0


def free_descriptors() -> int:
    """Descriptors this process may still open."""
    limit = open_file_limit()
    return PLENTY if limit is None else limit - len(os.listdir("/proc/self/fd"))  # noqa: PTH208 (a tenth of the cost)


class DescriptorWatch:
    """Says when descriptors become scarce, looking less often the more are free.

    Counting them costs time in proportion to those in use, so each look buys as many accepts as half of the free ones.

    Attributes:
        accepts_until_look: Counted down by the accept path; `look` is due at 0.
        scarce: Set once fewer than `SCARCE` are free.
    """

    def __init__(self) -> None:
        self.accepts_until_look = 0
        self.scarce = anyio.Event()

    def look(self) -> None:
        """See how many are free, and when to look again."""
        free = free_descriptors()
        self.accepts_until_look = free // 2
        if free < SCARCE:
            self.scarce.set()


async def wait_until_plenty() -> None:
    """Return once at least `PLENTY` are free: the kernel tells nobody, so look once a second."""
    while free_descriptors() < PLENTY:  # noqa: ASYNC110
        await anyio.sleep(LOOK_EVERY_S)
