"""`make test` counts the lines of every process, and fails below a package's floor."""

from __future__ import annotations

from collections.abc import Callable
from subprocess import CompletedProcess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

Run = Callable[..., CompletedProcess[str]]

# A package whose lines run in the test's own process, in a program that SIGTERM ends, in a fork, and nowhere.
PACKAGE = """
import os
import time


def in_this_process():
    return 1


def in_a_fork():
    os._exit(0)


def in_a_program():
    while True: print("ready", flush=True), time.sleep(0.05)


def nowhere():
    return 2


if __name__ == "__main__":
    in_a_program()
"""

SUITE = """
import os
import subprocess
import sys

from esockd_cidr import _roles


def test_processes(tmp_path):
    assert _roles.in_this_process()
    if (pid := os.fork()) == 0:
        _roles.in_a_fork()
    assert os.waitpid(pid, 0)[1] == 0
    # a working directory of its own, as a program that a test starts in tmp_path
    command = [sys.executable, "-m", "esockd_cidr._roles"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=tmp_path) as program:
        assert program.stdout.readline() == b"ready\\n"
        program.terminate()
"""


@pytest.fixture
def suite(workspace: Path) -> Path:
    source = workspace / "packages" / "esockd-cidr" / "src" / "esockd_cidr"
    (source / "_roles.py").write_text(PACKAGE)
    (workspace / "tests").mkdir()
    (workspace / "tests" / "test_roles.py").write_text(SUITE)
    imports = "".join(f"import esockd_{name}\n" for name in ["cidr", "proxyproto", "ratelimit", "core", "cli"])
    (workspace / "tests" / "test_imports.py").write_text(f"{imports}\ndef test_imports():\n    assert esockd_cli\n")
    return workspace


@pytest.mark.parametrize("processes", ["0", "2"])
def test_lines_of_every_process_count_and_a_missing_one_fails(suite: Path, run: Run, processes: str) -> None:
    sources = ":".join(str(path) for path in suite.glob("packages/*/src"))
    tested = run("pytest", "-n", processes, "--cov", "--cov-report=", PYTHONPATH=sources)
    assert tested.returncode == 0, tested.stdout
    checked = run("python", "tools/check_coverage.py", PYTHONPATH=sources)
    missing_line = PACKAGE[: PACKAGE.index("return 2")].count("\n") + 1
    assert checked.returncode == 1, checked.stdout
    assert "coverage is below its floor in: cidr\n" in checked.stdout
    report = next(line for line in checked.stdout.splitlines() if "_roles.py" in line)
    assert report.rpartition("%")[2].strip() == str(missing_line), checked.stdout


def test_a_fully_covered_package_passes(suite: Path, run: Run) -> None:
    (suite / "packages" / "esockd-cidr" / "src" / "esockd_cidr" / "_roles.py").unlink()
    (suite / "tests" / "test_roles.py").unlink()
    sources = ":".join(str(path) for path in suite.glob("packages/*/src"))
    assert run("pytest", "--cov", "--cov-report=", PYTHONPATH=sources).returncode == 0
    checked = run("python", "tools/check_coverage.py", PYTHONPATH=sources)
    assert checked.returncode == 0, checked.stdout


def test_a_package_that_no_test_imports_fails(suite: Path, run: Run) -> None:
    (suite / "tests" / "test_imports.py").write_text("def test_nothing():\n    assert True\n")
    (suite / "tests" / "test_roles.py").unlink()
    sources = ":".join(str(path) for path in suite.glob("packages/*/src"))
    run("pytest", "--cov", "--cov-report=", PYTHONPATH=sources)
    assert run("python", "tools/check_coverage.py", PYTHONPATH=sources).returncode == 1
