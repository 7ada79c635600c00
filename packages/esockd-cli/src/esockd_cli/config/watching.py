"""Seeing that files change, on every file system: by looking at them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import anyio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

Look: TypeAlias = dict[str, object]


async def changes_of(files: Callable[[], Sequence[str]], interval_s: float) -> AsyncGenerator[None, None]:
    """Yield each time that files have changed and then stayed as they are for one interval.

    So a file that is just being written is not read half, and files that belong together are read together.

    Args:
        files: The files to look at, asked each time.
        interval_s: Seconds from one look to the next.
    """
    known = _look(files())
    before = known
    while True:
        await anyio.sleep(interval_s)
        now = _look(files())
        if now == before != known:
            known = now
            yield
            # There may be other files now. Of the old ones, what has changed meanwhile is still to be told.
            now = known = {file: known.get(file, look) for file, look in _look(files()).items()}
        before = now


def _look(files: Sequence[str]) -> Look:
    return {file: _look_at(file) for file in files}


def _look_at(file: str) -> object:
    try:
        status = Path(file).stat()
    except OSError as error:
        return error.errno
    return status.st_mtime_ns, status.st_size, status.st_ino, status.st_dev
