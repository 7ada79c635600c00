"""How many connections the limit on open files leaves room for."""

from __future__ import annotations

import resource

OTHER_FILES = 64
"""Descriptors kept back for listeners, logs, databases and the loop; a quarter of the limit where that is less."""


def open_file_limit() -> int | None:
    """The soft limit on open files of this process; None when there is none (getrlimit(2), RLIMIT_NOFILE)."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def raise_open_file_limit() -> int | None:
    """Raise the soft limit on open files to the hard one, for a program of its own; a library leaves it alone.

    Returns:
        The limit that holds now; None when there is none.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return open_file_limit()


def clamp_max_connections(requested: int | None, *, explicit: bool) -> tuple[int | None, str | None]:
    """Bound a number of connections by what the open-file limit can hold.

    Args:
        requested: The `max_connections` asked for; None for as many as there is room for.
        explicit: Whether somebody wrote the number: only then is lowering it worth a warning.

    Returns:
        The number to use (None only when there is no limit at all), and the warning to give, if any.
    """
    limit = open_file_limit()
    if limit is None:
        return requested, None
    room = limit - min(OTHER_FILES, limit // 4)
    if requested is None:
        return room, None
    if requested <= room:
        return requested, None
    warning = f"max_connections {requested} exceeds the open-file limit {limit}; using {room}. Raise it: ulimit -n"
    return room, warning if explicit else None
