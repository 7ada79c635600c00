"""Print each tested CPython that works on this machine, one path a line, newest patch of each version.

Usage: python tools/pythons.py

The tested versions are those in the classifiers of esockd-core. Looks on PATH and in pyenv's folder of versions. A shim
that does not run, or runs another version, does not count.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

MANIFEST = Path(__file__).resolve().parent.parent / "packages" / "esockd-core" / "pyproject.toml"
TESTED = [(3, int(minor)) for minor in re.findall(r"Python :: 3\.(\d+)", MANIFEST.read_text())]
PROBE = "import sys, platform; print(platform.python_implementation(), *sys.version_info[:3], sys.executable)"


def candidates() -> list[Path]:
    """Every file that may be an interpreter of a tested version."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv"))  # noqa: PTH111 (no home is no error)
    folders = [Path(entry) for entry in os.environ.get("PATH", os.defpath).split(os.pathsep) if entry]
    folders += sorted(pyenv.glob("versions/*/bin"))
    return [folder / f"python{major}.{minor}" for major, minor in TESTED for folder in folders]


def probe(path: Path) -> tuple[tuple[int, int, int], str] | None:
    """The version and true path of a working CPython, or None."""
    try:
        result = subprocess.run([path, "-c", PROBE], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    words = result.stdout.split(maxsplit=4)
    if result.returncode or len(words) != 5 or words[0] != "CPython":
        return None
    return (int(words[1]), int(words[2]), int(words[3])), words[4].strip()


def working() -> dict[tuple[int, int], str]:
    """The newest working interpreter of each tested version."""
    newest: dict[tuple[int, int], tuple[tuple[int, int, int], str]] = {}
    for path in candidates():
        found = probe(path) if path.exists() else None
        if found and found[0][:2] in TESTED and found > newest.get(found[0][:2], ((0, 0, 0), "")):
            newest[found[0][:2]] = found
    return {version: newest[version][1] for version in sorted(newest)}


if __name__ == "__main__":
    for executable in working().values():
        print(executable)
