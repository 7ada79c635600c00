"""`make test` counts the lines of every process, and fails below a package's floor."""

from __future__ import annotations

import re
from collections.abc import Callable
from subprocess import CompletedProcess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

Run = Callable[..., CompletedProcess[str]]
PYTEST = ("-m", "pytest", "-p", "tools.unfinished_data", "--cov", "--cov-report=")

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

# A test that leaves what a killed process may: the beginning of a database, whose rows cannot be read.
KILLED = """
import subprocess
import sys
from pathlib import Path

from coverage import CoverageData


def leave_half(process_id):
    file = Path(f".coverage.a.pid{process_id}.Xabcdefx")
    data = CoverageData(str(file))
    data.add_arcs({f"/{number}.py": [(line, line + 1) for line in range(900)] for number in range(9)})
    data.close()
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 4] + bytes([255]) * (len(whole) // 4 * 3))


def test_killed():
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    leave_half(process.pid)
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


@pytest.fixture
def covered(suite: Path) -> Path:
    """A suite that covers everything."""
    (suite / "packages" / "esockd-cidr" / "src" / "esockd_cidr" / "_roles.py").unlink()
    (suite / "tests" / "test_roles.py").unlink()
    return suite


@pytest.mark.parametrize("processes", ["0", "2"])
def test_lines_of_every_process_count_and_a_missing_one_fails(suite: Path, run: Run, processes: str) -> None:
    sources = ":".join(str(path) for path in suite.glob("packages/*/src"))
    tested = run("python", *PYTEST, "-n", processes, PYTHONPATH=sources)
    assert tested.returncode == 0, tested.stdout
    checked = run("python", "-m", "tools.check_coverage", PYTHONPATH=sources)
    missing_line = PACKAGE[: PACKAGE.index("return 2")].count("\n") + 1
    assert checked.returncode == 1, checked.stdout
    assert "coverage is below its floor in: cidr\n" in checked.stdout
    report = next(line for line in checked.stdout.splitlines() if "_roles.py" in line)
    assert report.rpartition("%")[2].strip() == str(missing_line), checked.stdout


def test_a_fully_covered_package_passes(covered: Path, run: Run) -> None:
    sources = ":".join(str(path) for path in covered.glob("packages/*/src"))
    assert run("python", *PYTEST, PYTHONPATH=sources).returncode == 0
    checked = run("python", "-m", "tools.check_coverage", PYTHONPATH=sources)
    assert checked.returncode == 0, checked.stdout


def test_a_package_that_no_test_imports_fails(suite: Path, run: Run) -> None:
    (suite / "tests" / "test_imports.py").write_text("def test_nothing():\n    assert True\n")
    (suite / "tests" / "test_roles.py").unlink()
    sources = ":".join(str(path) for path in suite.glob("packages/*/src"))
    run("python", *PYTEST, PYTHONPATH=sources)
    assert run("python", "-m", "tools.check_coverage", PYTHONPATH=sources).returncode == 1


@pytest.mark.parametrize("processes", ["0", "2"])
def test_data_that_a_killed_process_left_unfinished_is_left_out(covered: Path, run: Run, processes: str) -> None:
    (covered / "tests" / "test_killed.py").write_text(KILLED)
    sources = ":".join(str(path) for path in covered.glob("packages/*/src"))
    tested = run("python", *PYTEST, "-n", processes, PYTHONPATH=sources)
    assert tested.returncode == 0, tested.stdout
    assert re.search(r"left out: \.coverage\.a\.pid\d+\.Xabcdefx,", tested.stdout), tested.stdout
    assert list(covered.glob(".coverage.a.*")) == []
    assert run("python", "-m", "tools.check_coverage", PYTHONPATH=sources).returncode == 0


def test_late_data_counts_beside_data_that_is_not_finished(covered: Path, run: Run) -> None:
    sources = ":".join(str(path) for path in covered.glob("packages/*/src"))
    assert run("python", *PYTEST, PYTHONPATH=sources).returncode == 0
    (covered / ".coverage").rename(covered / ".coverage.b.pid1.Xabcdefx.H0123456789h")
    (covered / "leave.py").write_text(f"{KILLED}\nleave_half(1)\n")
    assert run("python", "leave.py").returncode == 0
    checked = run("python", "-m", "tools.check_coverage", PYTHONPATH=sources)
    assert checked.returncode == 0, checked.stdout
    assert "left out: .coverage.a.pid1.Xabcdefx," in checked.stdout
