"""Build every package and check its wheel: it installs alone, imports alone, and passes its own tests.

Usage: .venv/bin/python -m tools.check_wheels

Each package is built as an sdist and a wheel (the wheel from the sdist, which shows that the sdist is complete), from a
copy whose README stands alone, without any file that git ignores. On every tested CPython of this machine, the wheel is
installed and imported in an empty environment with nothing but what it depends on, and tests/distribution runs against
it. Siblings come from the wheels just built, never from an index.

On the Pythons that `make test` does not take, the package's own tests run against the wheel as well. The tests of
several packages together run against the wheel of the command, which requires all others but esockd-speedups.

esockd-speedups is in C and has a wheel for each Python. With it, core and the command are tested on the Python whose
tests run on asyncio; everywhere else they are tested without. What it stands in for is tested the other way as well: on
that Python without it, and on the others with it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING
from zipfile import ZipFile

from tools.git import files_of
from tools.index_readme import for_index, relative_links
from tools.pythons import TESTED
from tools.venv import IN_C
from tools.wheel_environments import (
    ROOT,
    SIBLINGS,
    WORK,
    Python,
    add,
    check_that_c_compiles,
    compile_wheel,
    install,
    pythons,
    run,
    what_tests_need,
)

if TYPE_CHECKING:
    from pathlib import Path

WHEELHOUSE = WORK / "dist"
NAMES = ["cidr", "proxyproto", "ratelimit", "speedups", "core", "cli"]  # each after those that it requires
SPED_UP = ["core", "cli"]  # what esockd-speedups is tested with
SWITCH = "ESOCKD_SPEEDUPS"  # switches it off
EXPECTED = "ESOCKD_EXPECT_SPEEDUPS"  # tells the tests whether it has to be in use
STREAMS = ["core/loops", "core/connection"]  # the tests of what it stands in for
# Tests of a package outside the folder of its own name.
ALSO = {"cli": ["integration"]}
SETTINGS = ["-m", "pytest", "-q", f"--rootdir={ROOT}", f"--config-file={ROOT / 'pyproject.toml'}"]
PARALLEL = ["-n4", "--dist=worksteal"]
# What starts the tests or the benchmarks anew says the same on every Python.
ONCE = ["core/platform/test_elsewhere.py", "integration/test_benchmarks.py"]


def build_all() -> None:
    """Build every package into an empty wheelhouse."""
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    for python in pythons():
        check_that_c_compiles(python)
    for name in NAMES:
        build(name)
    lines = [f"esockd-{name} @ {wheel(name).as_uri()}\n" for name in NAMES if name != IN_C]
    for python in pythons():
        version = "{}.{}".format(*python.version)
        lines.append(f"esockd-{IN_C} @ {wheel(IN_C, python).as_uri()} ; python_version == '{version}'\n")
    SIBLINGS.write_text("".join(lines))


def build(name: str) -> None:
    """Build sdist and wheels of one package into the wheelhouse."""
    folder = f"packages/esockd-{name}"
    source = WORK / folder
    for path in files_of(ROOT, folder):
        (WORK / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, WORK / path)
    project = tomllib.loads((source / "pyproject.toml").read_text())["project"]
    readme = source / "README.md"
    tag = f"esockd-{name}-{project['version']}"
    readme.write_text(for_index(readme.read_text(), folder, project["urls"]["Homepage"], tag))
    if name != IN_C:
        run(sys.executable, "-m", "build", "--no-isolation", "--outdir", WHEELHOUSE, source)
        return
    run(sys.executable, "-m", "build", "--no-isolation", "--sdist", "--outdir", WHEELHOUSE, source)
    [sdist] = WHEELHOUSE.glob(f"esockd_{name}-*.tar.gz")
    for python in pythons():
        compile_wheel(python, sdist, WHEELHOUSE)


def wheel(name: str, python: Python | None = None) -> Path:
    """The wheel of a package, which only that in C has for each interpreter."""
    which = "cp{}{}".format(*python.version) if name == IN_C and python is not None else "py3-none-any"
    [found] = WHEELHOUSE.glob(f"esockd_{name}-*-{which}*.whl")
    return found


def is_sped_up(python: Python, name: str) -> bool:
    """Whether a package is tested with esockd-speedups on an interpreter."""
    return name in SPED_UP and "asyncio" in python.loops


def check(name: str) -> None:
    """Check the wheel of a package, and its README, on each interpreter."""
    for python in pythons():
        built = wheel(name, python)
        with ZipFile(built) as archive:
            [metadata] = [entry for entry in archive.namelist() if entry.endswith(".dist-info/METADATA")]
            if links := relative_links(archive.read(metadata).decode()):
                sys.exit(f"error: the README in {built.name} links to files that are not there: {', '.join(links)}")
        check_on(python, name, built)


def check_on(python: Python, name: str, built: Path) -> None:
    """Install one wheel into an empty environment of an interpreter, import it, and run tests against it."""
    sped_up = is_sped_up(python, name)
    environment = install(python, name, built, *([f"esockd-{name}[speedups]"] if sped_up else []))
    interpreter = environment / "bin" / "python"
    run(interpreter, "-c", f"import esockd_{name}; assert {str(environment)!r} in esockd_{name}.__file__")
    add(environment, what_tests_need(python))
    what = f"{built.name} on Python {python.folder.name}{' with esockd-speedups' if sped_up else ''}"
    tests = f"its tests with {python.loops}" if python.loops else "tests/distribution"
    print(f"== {what}: sdist, wheel, README and import are fine; {tests}:", flush=True)
    what_fails = f"the tests of esockd-{name} fail against {what}"
    run_tests(interpreter, pytest_arguments(python, name), what_fails, {EXPECTED: "1" if sped_up else "0"})


def check_streams_on(python: Python) -> None:
    """Test streams the other way: without esockd-speedups where core is tested with it, and with it elsewhere."""
    environment = install(python, "streams", "esockd-core[speedups]")
    add(environment, what_tests_need(python))
    in_c = not is_sped_up(python, "core")
    print(f"== streams {'in C' if in_c else 'in Python'} on Python {python.folder.name}:", flush=True)
    folders = [str(ROOT / "tests" / folder) for folder in STREAMS]
    arguments = [*SETTINGS, *PARALLEL, "--loops=asyncio,uvloop", *folders]
    what_fails = f"the tests of streams fail on Python {python.folder.name}"
    switches = {EXPECTED: "1"} if in_c else {EXPECTED: "0", SWITCH: "0"}
    run_tests(environment / "bin" / "python", arguments, what_fails, switches)


def run_tests(interpreter: Path, arguments: list[str], what_fails: str, variables: dict[str, str]) -> None:
    """Run tests with other environment variables, and stop when they fail."""
    command = [str(interpreter), *arguments]
    if code := subprocess.run(command, cwd=WORK, env=os.environ | variables, check=False).returncode:
        sys.exit(f"error: {what_fails} (pytest's exit code {code})")


def pytest_arguments(python: Python, name: str) -> list[str]:
    """The tests of a package that run on an interpreter, as arguments of that."""
    distribution = str(ROOT / "tests" / "distribution")
    if not python.loops:  # `make test` has run the tests of all packages but the one in C
        return [*SETTINGS, distribution, *([str(ROOT / "tests" / name)] if name == IN_C else [])]
    folders = [ROOT / "tests" / folder for folder in (name, *ALSO.get(name, []))]
    left_out = [f"--ignore={ROOT / 'tests' / file}" for file in ONCE]
    loops = f"--loops={python.loops}"
    return [*SETTINGS, *PARALLEL, loops, *left_out, distribution, *map(str, filter(has_tests, folders))]


def has_tests(folder: Path) -> bool:
    """Whether there are tests; a package with code needs them for its coverage floor in `make test`."""
    return any(folder.glob("**/test_*.py"))


def main() -> None:
    """Entry point."""
    for python in pythons():
        print(f"== Python {python.folder.name}: {python.loops or 'tests/distribution'}", flush=True)
    if missing := set(TESTED) - {python.version for python in pythons()}:
        versions = ", ".join(f"{major}.{minor}" for major, minor in sorted(missing))
        print(f"notice: no Python {versions} works here, so wheels are not tested on it", flush=True)
    build_all()
    for name in NAMES:
        check(name)
    for python in pythons():
        check_streams_on(python)


if __name__ == "__main__":
    main()
