"""Build every package and prove its wheel: it installs alone, imports alone, and passes its own tests.

Usage: .venv/bin/python tools/check_wheels.py

For each package: sdist and wheel (the wheel from the sdist, so the sdist is complete), an empty environment with
nothing but the wheel and what it depends on, an import there, then the package's tests against the installed wheel.
Siblings that are not published yet come from the wheels just built.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / ".cache" / "wheels"
WHEELHOUSE = WORK / "dist"
NAMES = ["cidr", "proxyproto", "ratelimit", "core", "cli"]  # in the order in which they depend on each other


def run(*command: str | Path, cwd: Path = ROOT) -> None:
    """Run a command in view of the reader and stop at the first failure."""
    print("+", *command, file=sys.stderr, flush=True)
    subprocess.run(command, cwd=cwd, check=True)


def build(name: str) -> Path:
    """Build sdist and wheel of one package into the wheelhouse; return the wheel."""
    folder = ROOT / "packages" / f"esockd-{name}"
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", WHEELHOUSE, folder)
    version = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["version"]
    return WHEELHOUSE / f"esockd_{name}-{version}-py3-none-any.whl"


def check(name: str, wheel: Path) -> None:
    """Install one wheel into an empty environment, import it, and run its tests against it."""
    environment = WORK / name
    python = environment / "bin" / "python"
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    install = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--find-links", WHEELHOUSE)
    constraints = ("--constraint", ROOT / "constraints.txt")
    run(*install, *constraints, wheel)
    run(python, "-c", f"import esockd_{name}; assert '{environment}' in esockd_{name}.__file__", cwd=WORK)
    run(*install, *constraints, "--group", f"{ROOT / 'pyproject.toml'}:test")
    run(python, "-m", "pytest", "-q", "--rootdir", ROOT, "-c", ROOT / "pyproject.toml", ROOT / "tests" / name, cwd=WORK)


def main() -> None:
    """Entry point."""
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    wheels = {name: build(name) for name in NAMES}
    for name, wheel in wheels.items():
        check(name, wheel)


if __name__ == "__main__":
    main()
