"""How many file descriptors are free, for an accept path that cannot see them run out."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final, NamedTuple

import anyio

from esockd_core._platform.open_files import open_file_limit
from esockd_core._platform.process import open_file_count

if TYPE_CHECKING:
    from collections.abc import Callable

LEAST_RESERVE: Final = 96  # uvloop may accept about 50 in one pass, and closes refused ones in the next
RESERVE_SHARE: Final = 16  # of the limit: programs with a high limit open many at a time
LOOK_EVERY_S: Final = 0.05
WAIT_S: Final = 1.0


class Descriptors(NamedTuple):
    """The descriptors that this process may still open.

    Attributes:
        free: How many are free.
        reserve: How many have to stay free, because other code of this process opens some between two looks.
    """

    free: int
    reserve: int

    @property
    def are_scarce(self) -> bool:
        """Whether fewer are free than the reserve."""
        return self.free < self.reserve

    @property
    def are_plenty(self) -> bool:
        """Whether enough are free that they will not be scarce again at once."""
        return self.free >= 2 * self.reserve


def count_descriptors() -> Descriptors:
    """Count the descriptors. None counts as free if counting is impossible or itself needs one."""
    limit = open_file_limit()
    if limit is None:
        return Descriptors(sys.maxsize, LEAST_RESERVE)
    reserve = max(LEAST_RESERVE, limit // RESERVE_SHARE)
    used = open_file_count()
    return Descriptors(0 if used is None else max(0, limit - used), reserve)


class DescriptorWatch:
    """Says when descriptors become scarce. The more are free, the less often it looks.

    Counting may take time in proportion to the descriptors in use. So each look allows a number of accepts in
    proportion to the free ones, few enough that handlers may open three more descriptors for each.

    Args:
        on_scarce: Called at each look that finds them scarce.

    Attributes:
        accepts_until_look: Counted down when accepting; `look` is due at 0.
    """

    def __init__(self, on_scarce: Callable[[], None]) -> None:
        self.accepts_until_look = 0
        self._on_scarce = on_scarce

    def look(self) -> None:
        """Count the free descriptors, because other code of this process opens some as well."""
        descriptors = count_descriptors()
        self.accepts_until_look = (descriptors.free - descriptors.reserve) // 4
        if descriptors.are_scarce:
            self._on_scarce()


async def wait_until_plenty() -> None:
    """Return once descriptors are plenty. The kernel does not tell, so look once a second."""
    while not count_descriptors().are_plenty:  # noqa: ASYNC110
        await anyio.sleep(WAIT_S)
