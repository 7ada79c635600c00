"""Complete a virtual environment; do nothing if it is complete already.

Usage: python -m tools.venv FOLDER GROUP

Creates FOLDER with the interpreter that runs this script, and installs the packages in editable form, but for the one
in C, and the dependency group GROUP of the top-level pyproject.toml. A stamp in FOLDER records what it was made from,
so that the second call returns at once. It needs nothing but Python 3.11 or newer and pip: where Debian's `ensurepip`
is missing, the running interpreter's own pip fills the new environment.

A tested Python gets the exact versions of constraints.txt. They may not exist for a newer one: there the bounds of each
pyproject.toml decide, and a line says that it is untested.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from tools.pythons import TESTED

ROOT = Path(__file__).resolve().parent.parent
IN_C = "speedups"  # the package that is not installed: the tasks need no compiler
MANIFESTS = sorted(path for path in ROOT.glob("packages/*/pyproject.toml") if path.parent.name != f"esockd-{IN_C}")
MINIMUM_PIP = "pip>=25.1"  # the first that reads [dependency-groups]


def digest(group: str) -> str:
    """Everything that decides what the environment holds, as one hash."""
    state = hashlib.sha256(f"{sys.version} {sys.executable} {group} {ROOT}".encode())
    for path in [ROOT / "pyproject.toml", ROOT / "constraints.txt", *MANIFESTS]:
        state.update(path.read_bytes())
    return state.hexdigest()


def run(*command: str | Path) -> None:
    """Run a command, and show its output only if it fails."""
    result = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if result.returncode:
        sys.stderr.buffer.write(result.stdout)
        line = " ".join(str(word) for word in command)
        sys.exit(f"error: this command failed with exit code {result.returncode}: {line}")


def create(folder: Path) -> Path:
    """Create an empty environment that has a pip able to read dependency groups; return its interpreter."""
    shutil.rmtree(folder, ignore_errors=True)
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    own_pip = subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False)
    if own_pip.returncode == 0:
        run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", MINIMUM_PIP)
    else:
        run(python, "-m", "ensurepip")
        run(python, "-m", "pip", "install", "--quiet", "--upgrade", MINIMUM_PIP)
    return python


def is_alive(python: Path) -> bool:
    """Whether the environment's interpreter still runs (the one it was made from may be gone)."""
    try:
        return subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def constraints(version: tuple[int, int]) -> tuple[str, ...]:
    """Pip's options for the pinned versions: none on an untested Python, for which they may not exist."""
    return ("--constraint", str(ROOT / "constraints.txt")) if version in TESTED else ()


def main() -> None:
    """Entry point."""
    folder, group = ROOT / sys.argv[1], sys.argv[2]
    stamp, wanted = folder / f".esockd-{group}", digest(group)
    python = folder / "bin" / "python"
    if stamp.is_file() and stamp.read_text() == wanted and is_alive(python):
        return
    print(f"setting up {folder.name} (group {group}) with Python {sys.version.split()[0]} ...", file=sys.stderr)
    if sys.version_info[:2] not in TESTED:
        versions = ", ".join(f"3.{minor}" for _, minor in TESTED)
        print(f"notice: esockd is tested on Python {versions}, and not on this one yet", file=sys.stderr)
    if not (folder / ".esockd-made-by").is_file() or not is_alive(python):
        python = create(folder)
        (folder / ".esockd-made-by").write_text(sys.version)
    editable = [word for path in MANIFESTS for word in ("--editable", str(path.parent))]
    run(python, "-m", "pip", "install", "--quiet", *constraints(sys.version_info[:2]), "--group", group, *editable)
    stamp.write_text(wanted)


if __name__ == "__main__":
    main()
