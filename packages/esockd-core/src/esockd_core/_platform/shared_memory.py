"""Memory that several processes share, and locks that the death of a process releases."""

from __future__ import annotations

import fcntl
import os
import struct
import sys
import tempfile
from contextlib import suppress
from mmap import mmap
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from types import TracebackType

FLOCK: Final = struct.Struct("@hhqqi4x")  # struct flock of fcntl(2) on 64-bit Linux


def make_shared_file(size: int) -> int:
    """Make an anonymous file of zeros, and return its descriptor. Pages that were never written take no memory.

    Raises:
        OSError: If the system lacks descriptors or space.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("esockd")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    try:
        os.ftruncate(descriptor, size)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def map_shared_file(descriptor: int) -> mmap:
    """Map a shared file into this process."""
    return mmap(descriptor, os.fstat(descriptor).st_size)


class SharedLock:
    """A lock of one process among others that share a file, on its first byte (fcntl(2), record locks).

    A process that dies lets go of it, and so does one that closes any descriptor of the file. It does not keep the
    threads of one process apart.

    Args:
        descriptor: The file.
    """

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __enter__(self) -> Self:
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX, 1)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1)

    def holder(self) -> int | None:
        """The process that has the lock; None if no other has it, if the system does not tell, or once it is closed."""
        if sys.platform != "linux" or self._descriptor < 0:
            return None
        asked = FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0)
        kind, _, _, _, pid = FLOCK.unpack(fcntl.fcntl(self._descriptor, fcntl.F_GETLK, asked))
        return None if kind == fcntl.F_UNLCK else pid

    def close(self) -> None:
        """Lock nothing any more: the descriptor is closed, and its number may soon be that of another file."""
        self._descriptor = -1

    def take_nowait(self) -> bool:
        """Take the lock if nobody has it; return whether that worked. Leaving it as a context lets go of it."""
        with suppress(BlockingIOError, PermissionError):  # fcntl(2): EAGAIN or EACCES
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)
            return True
        return False
