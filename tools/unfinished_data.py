"""Coverage data that a process did not finish writing.

Each process writes its data to a file of its own. Once everything is there, coverage.py adds a hash of it to the name
of the file. Tests kill processes at any moment, and what such a process leaves may be any part of a database: combining
it with the data of other processes can fail halfway through.

As a plugin of pytest (`-p tools.unfinished_data`), this removes what ended processes left before pytest-cov combines
all files. It reports each of them, because their lines do not count.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

DATA = ".coverage.*"
FINISHED = re.compile(r"\.H\w+h$")
PROCESS = re.compile(r"\.pid(\d+)\.")


def unfinished(folder: Path) -> list[Path]:
    """The files that are not written to their end, in the order of their names."""
    return sorted(path for path in folder.glob(DATA) if not FINISHED.search(path.name))


def has_ended(path: Path) -> bool:
    """Whether the process that wrote a file is gone, so that nobody will finish it."""
    named = PROCESS.search(path.name)
    try:
        if named:
            os.kill(int(named[1]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


@pytest.hookimpl(wrapper=True, trylast=True)  # the innermost wrapper: it goes on before that of pytest-cov does
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """Remove what killed processes left, after the last test."""
    result = yield
    if not hasattr(session.config, "workerinput"):
        for path in filter(has_ended, unfinished(Path.cwd())):
            path.unlink()
            print(f"left out: {path.name}, whose process was killed while it wrote its coverage data")
    return result
