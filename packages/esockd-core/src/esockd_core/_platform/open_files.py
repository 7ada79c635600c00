"""The limit on open files, and how many connections it leaves room for."""

from __future__ import annotations

import errno
import resource
from typing import Final

OPEN_MAX: Final = 10_240  # sys/syslimits.h of macOS: the highest soft limit there whatever the hard one (setrlimit(2))
OTHER_FILES: Final = 64
"""Descriptors kept for listeners, logs, databases and the loop, but at most a quarter of the limit."""


def open_file_limit() -> int | None:
    """The soft limit on open files of this process; None if it has none (getrlimit(2), RLIMIT_NOFILE)."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def raise_open_file_limit() -> int | None:
    """Raise the soft limit on open files to the hard one. This is for programs; libraries leave the limit alone.

    Returns:
        The limit in force now; None if there is none.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        if soft != resource.RLIM_INFINITY:
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, OPEN_MAX), hard))
    return open_file_limit()


def hint_of(number: int | None) -> str | None:
    """What to do about an error of the kernel, by its number, if this process may not open any more files."""
    return "Raise the limit on open files: ulimit -n" if number == errno.EMFILE else None


def clamp_max_connections(
    requested: int | None, *, explicit: bool, worker_count: int = 1
) -> tuple[int | None, str | None]:
    """Bound a number of connections by the open-file limit.

    Args:
        requested: The `max_connections` asked for; None for as many as fit.
        worker_count: How many worker processes share the connections, each with such a limit of its own.
        explicit: Whether the number was given and is not the default: only then a lower one is worth a warning.

    Returns:
        The number to use (None only if there is no limit at all), and the warning to log, if any.
    """
    limit = open_file_limit()
    if limit is None:
        return requested, None
    room = (limit - min(OTHER_FILES, limit // 4)) * worker_count
    if requested is None:
        return room, None
    if requested <= room:
        return requested, None
    each = f" of each of {worker_count} processes" if worker_count > 1 else ""
    warning = (
        f"max_connections {requested} exceeds the open-file limit {limit}{each}; using {room}. Raise it: ulimit -n"
    )
    return room, warning if explicit else None
