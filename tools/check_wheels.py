"""Build every package and check its wheel: it installs alone, imports alone, and passes its own tests.

Usage: .venv/bin/python -m tools.check_wheels

Each package is built as an sdist and a wheel (the wheel from the sdist, which shows that the sdist is complete), from a
copy whose README stands alone, without any file that git ignores. The wheel is installed and imported in an empty
environment with nothing but what it depends on; then tests/distribution and the package's own tests run against it.
Siblings come from the wheels just built, never from an index.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from zipfile import ZipFile

from tools.git import files_of
from tools.index_readme import for_index, relative_links
from tools.venv import constraints

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / ".cache" / "wheels"
WHEELHOUSE = WORK / "dist"
SIBLINGS = WORK / "siblings.txt"  # a constraints file: each package is the wheel just built
NAMES = ["cidr", "proxyproto", "ratelimit", "core", "cli"]  # in the order in which they depend on each other


def run(*command: str | Path) -> None:
    """Run a command outside the source tree; show what it printed and stop when it fails."""
    result = subprocess.run(command, cwd=WORK, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if result.returncode:
        sys.stdout.buffer.write(result.stdout)
        line = " ".join(str(word) for word in command)
        sys.exit(f"error: this command failed with exit code {result.returncode}: {line}")


def build_all() -> dict[str, Path]:
    """Build every package into an empty wheelhouse; return the wheels by name."""
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    wheels = {name: build(name) for name in NAMES}
    SIBLINGS.write_text("".join(f"esockd-{name} @ {wheel.as_uri()}\n" for name, wheel in wheels.items()))
    return wheels


def build(name: str) -> Path:
    """Build sdist and wheel of one package into the wheelhouse; return the wheel."""
    folder = f"packages/esockd-{name}"
    source = WORK / folder
    for path in files_of(ROOT, folder):
        (WORK / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, WORK / path)
    project = tomllib.loads((source / "pyproject.toml").read_text())["project"]
    readme = source / "README.md"
    tag = f"esockd-{name}-{project['version']}"
    readme.write_text(for_index(readme.read_text(), folder, project["urls"]["Homepage"], tag))
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", WHEELHOUSE, source)
    return WHEELHOUSE / f"esockd_{name}-{project['version']}-py3-none-any.whl"


def check(name: str, wheel: Path) -> None:
    """Install one wheel into an empty environment, import it, and run its tests against it."""
    with ZipFile(wheel) as archive:
        [metadata] = [entry for entry in archive.namelist() if entry.endswith(".dist-info/METADATA")]
        if links := relative_links(archive.read(metadata).decode()):
            sys.exit(f"error: the README in {wheel.name} links to files that are not there: {', '.join(links)}")
    environment = WORK / name
    python = environment / "bin" / "python"
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    install = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet")
    limits = (*constraints(), "--constraint", str(SIBLINGS))
    run(*install, *limits, wheel)
    run(python, "-c", f"import esockd_{name}; assert {str(environment)!r} in esockd_{name}.__file__")
    run(*install, *limits, "--group", f"{ROOT / 'pyproject.toml'}:test")
    tests = [ROOT / "tests" / "distribution", ROOT / "tests" / name]
    options = [
        "-q",
        "-n4",
        "--loops=asyncio",  # what a wheel lacks, it lacks on every event loop
        f"--rootdir={ROOT}",
        f"--config-file={ROOT / 'pyproject.toml'}",
    ]
    command = [str(python), "-m", "pytest", *options, *map(str, filter(has_tests, tests))]
    print(f"== {wheel.name}: sdist, wheel, README and import are fine; its tests:", flush=True)
    if code := subprocess.run(command, cwd=WORK, check=False).returncode:
        sys.exit(f"error: the tests of esockd-{name} fail against {wheel.name} (pytest's exit code {code})")


def has_tests(folder: Path) -> bool:
    """Whether there are tests; a package with code needs them for its coverage floor in `make test`."""
    return any(folder.glob("**/test_*.py"))


def main() -> None:
    """Entry point."""
    for name, wheel in build_all().items():
        check(name, wheel)


if __name__ == "__main__":
    main()
