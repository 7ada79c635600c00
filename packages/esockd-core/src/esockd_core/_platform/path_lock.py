"""A lock on a path, held while a program probes, removes and creates it again (flock(2))."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def lock_path_of(path: str) -> str:
    """The file to lock: next to the path, with a name that no other program uses."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.esockd-lock")  # noqa: PTH118 (text for text)


@contextmanager
def locked_path(path: str) -> Iterator[None]:
    """Keep all other users of this lock from the path meanwhile.

    The lock is an empty file, which is removed at the end. A crash leaves a file behind that locks nothing.

    Raises:
        BlockingIOError: If another process or thread has the lock.
        OSError: If the folder does not exist or cannot be written to, or if the file belongs to another user.
    """
    lock_path = lock_path_of(path)
    lock = _take_lock(lock_path)
    try:
        yield
    finally:
        with suppress(OSError):
            os.unlink(lock_path)  # noqa: PTH108 (still locked: nobody else holds this file)
        os.close(lock)


def _take_lock(lock_path: str) -> int:
    """Lock the file, and check that it still has its name: its last holder may have removed it."""
    while True:
        fd = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _has_a_name(fd):
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _has_a_name(lock: int) -> bool:
    status = os.fstat(lock)
    if status.st_size or not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EEXIST, "what is there is not a lock")
    return bool(status.st_nlink)
