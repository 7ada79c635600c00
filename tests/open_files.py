"""A limit on open files that leaves just some of them."""

from __future__ import annotations

import gc
import resource
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def only_files_left(count: int) -> Iterator[None]:
    """Let this process open only so many more files, for the duration of a block.

    The collector of garbage stays off: it could close files that earlier tests left, and so make room for more.
    """
    collects = gc.isenabled()
    gc.collect()
    gc.disable()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[socket.socket] = []
    try:
        highest = max(_take(taken) for _ in range(count + 1))
        for sock in taken:
            sock.close()
        # A new file takes the lowest free number below the limit. So the limit is the number after the last free one
        # that is to be left.
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest, hard))
        yield
    finally:
        for sock in taken:
            sock.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if collects:
            gc.enable()


def _take(taken: list[socket.socket]) -> int:
    taken.append(socket.socket())
    return taken[-1].fileno()
