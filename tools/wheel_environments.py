"""The environments in which wheels are tested: on which interpreters, and what is in them."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tools.pythons import working
from tools.venv import constraints

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / ".cache" / "wheels"
SIBLINGS = WORK / "siblings.txt"  # a constraints file: each package is the wheel just built


class Python(NamedTuple):
    """An interpreter on which wheels are tested.

    Attributes:
        version: Such as (3, 12).
        path: The interpreter.
        loops: The event loops whose tests run on it, as pytest's `--loops` takes them. Empty for the interpreter of
            `make test`, which has run those tests already: there a wheel only has to be complete.
    """

    version: tuple[int, int]
    path: str
    loops: str

    @property
    def folder(self) -> Path:
        """Where its environments are."""
        return WORK / "{}.{}".format(*self.version)


def plan(found: Mapping[tuple[int, int], str], own: tuple[int, int]) -> list[Python]:
    """Choose the event loops of each interpreter.

    The newest of the others runs asyncio and uvloop, and those between run trio; one alone runs all three. So, together
    with `make test`, each event loop is tested on at least two. Without any other, the interpreter of `make test` runs
    asyncio: what a wheel lacks, it lacks on every event loop.

    Args:
        found: The interpreters of this machine.
        own: The version that runs the tasks.
    """
    others = sorted(version for version in found if version != own)
    newest = "asyncio,uvloop" if len(others) > 1 else "asyncio,uvloop,trio"
    loops = dict.fromkeys(others, "trio") | dict.fromkeys(others[-1:], newest)
    return [
        Python(own, sys.executable, "" if others else "asyncio"),
        *(Python(version, found[version], loops[version]) for version in others),
    ]


@cache
def pythons() -> tuple[Python, ...]:
    """The interpreters of this machine, that of `make test` first. It looks once, or a slow one might get lost."""
    return tuple(plan(working(), sys.version_info[:2]))


def run(*command: str | Path) -> str:
    """Run a command outside the source tree and return what it printed; show that and stop when it fails."""
    result = subprocess.run(command, cwd=WORK, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if result.returncode:
        sys.stdout.write(result.stdout)
        line = " ".join(str(word) for word in command)
        sys.exit(f"error: this command failed with exit code {result.returncode}: {line}")
    return result.stdout


def install(python: Python, name: str, *what: str | Path) -> Path:
    """Make a new environment with the given requirements, what these require, and nothing else; return its folder."""
    environment = python.folder / name
    run(python.path, "-m", "venv", "--without-pip", environment)
    pip = (sys.executable, "-m", "pip", "--python", environment / "bin" / "python")
    run(*pip, "install", "--quiet", *constraints(python.version), "--constraint", str(SIBLINGS), *what)
    return environment


def check_that_c_compiles(python: Python) -> None:
    """Stop with what to install if an interpreter's packages in C cannot be compiled here."""
    ask = "import sysconfig; print(sysconfig.get_config_var('CC') or 'cc'); print(sysconfig.get_path('include'))"
    compiler, include = run(python.path, "-c", ask).splitlines()[-2:]  # a warning may stand before them
    version = "{}.{}".format(*python.version)
    program = shlex.split(os.environ.get("CC") or compiler)[0]
    if shutil.which(program) is None:
        sys.exit(
            f"error: esockd-speedups needs {program}, with which Python {version} compiles; "
            "Debian has it in the package gcc, and CC names another one"
        )
    if not (Path(include) / "Python.h").is_file():
        sys.exit(
            f"error: esockd-speedups is in C, and Python {version} has no headers in {include}; "
            "Debian's own Python has them in the package python3-dev"
        )


def compile_wheel(python: Python, sdist: Path, folder: Path) -> None:
    """Build the wheel of a package in C for an interpreter, from its sdist, into a folder."""
    environment = python.folder / "setuptools"
    run(python.path, "-m", "venv", "--without-pip", environment)
    pip = (sys.executable, "-m", "pip", "--python", environment / "bin" / "python")
    run(*pip, "install", "--quiet", *constraints(python.version), "setuptools")
    run(*pip, "wheel", "--quiet", "--no-build-isolation", "--no-deps", "--wheel-dir", folder, sdist)


def what_tests_need(python: Python) -> Path:
    """The environment with the dependency group "test" and nothing of esockd, made once for all wheels."""
    environment = python.folder / "group-test"
    if environment.exists():
        return environment
    return install(python, environment.name, "--group", f"{ROOT / 'pyproject.toml'}:test")


def add(environment: Path, other: Path) -> None:
    """Add to an environment what another of the same interpreter has: its modules come last, its programs too."""
    ask = "import sysconfig; print(*(sysconfig.get_path(kind) for kind in ('purelib', 'platlib')), sep='\\n')"
    own, others = (run(each / "bin" / "python", "-c", ask).splitlines() for each in (environment, other))
    lines = [f"import site; site.addsitedir({folder!r})\n" for folder in dict.fromkeys(others)]
    (Path(own[0]) / "other.pth").write_text("".join(lines))
    for program in (other / "bin").iterdir():
        mine = environment / "bin" / program.name
        if not mine.exists() and f"{other}/bin/python" in (text := program.read_text(errors="replace")):
            mine.write_text(text.replace(f"{other}/bin/python", f"{environment}/bin/python"))
            mine.chmod(0o755)
