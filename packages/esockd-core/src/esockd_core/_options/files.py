"""Files that options name: whether they can be read, and what to say if they cannot."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from esockd_core._errors import InvalidOption


def check_file(option: str, file: str | Path) -> None:
    """See that a file is there, is a regular one, and can be read.

    A pipe is refused: opening it would wait for a writer, and it would be empty when the file is read again.

    Raises:
        InvalidOption: If it is not, which includes that a folder on the way to it may not be searched.
    """
    if (reason := _why_not(Path(file))) is not None:
        raise InvalidOption(reason, option=option, value=str(file))


def read_regular_file(path: str | Path, max_bytes: int) -> bytes:
    """Read a whole file without waiting for anybody.

    Args:
        path: The file.
        max_bytes: The most that it may hold, in whole MiB.

    Raises:
        OSError: If it cannot be read, is a pipe or a device, or holds more.
    """
    with open(path, "rb", opener=_open_at_once) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is a pipe or a device, not a file")
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"it holds more than {max_bytes >> 20} MiB")
    return content


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


def _why_not(path: Path) -> str | None:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            return "it is a directory"
        if not stat.S_ISREG(mode):
            return "it is not a regular file"
        path.open("rb").close()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: no file can have such a name
        return f"it does not exist{_looked_from(path)}"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return None


def _looked_from(path: Path) -> str:
    try:
        return "" if path.is_absolute() else f" (looked from {Path.cwd()})"
    except OSError:
        return " (looked from a folder that has been removed)"
