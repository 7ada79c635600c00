"""Combine the coverage data of a test run and hold each package to its floor.

The small packages are covered completely, branches included. Core and CLI deal with sockets, signals and processes:
their floors are below 100 only because of lines that nothing but a broken kernel reaches.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tools.unfinished_data import DATA, unfinished

FLOORS = {"cidr": 100, "proxyproto": 100, "ratelimit": 100, "core": 90, "cli": 90}


def coverage(*arguments: str) -> int:
    """Run coverage and return its exit code."""
    return subprocess.run([Path(sys.executable).with_name("coverage"), *arguments], check=False).returncode


def combine_late_data() -> None:
    """Add the data of programs that outlived the tests, as far as they have written it to its end."""
    for path in unfinished(Path()):
        path.unlink()
        print(f"left out: {path.name}, coverage data that is not written to its end", flush=True)
    if any(Path().glob(DATA)):
        coverage("combine", "--quiet", "--append")


def main() -> None:
    """Entry point."""
    combine_late_data()
    failed = []
    for package, floor in FLOORS.items():
        print(f"== esockd-{package} (at least {floor} %)", flush=True)
        if coverage("report", f"--include=*/esockd_{package}/*", f"--fail-under={floor}"):
            failed.append(package)
    if failed:
        sys.exit(f"error: coverage is below its floor in: {', '.join(failed)}")


if __name__ == "__main__":
    main()
