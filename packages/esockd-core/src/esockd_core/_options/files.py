"""Files that options name: whether they can be read, and what to say if they cannot."""

from __future__ import annotations

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
