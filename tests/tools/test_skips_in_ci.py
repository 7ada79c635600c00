"""A test that skips is a failure in CI: nothing may be missing there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

Run = Callable[..., CompletedProcess[str]]
ROOT = Path(__file__).resolve().parents[2]

SKIPS = """
import pytest


def test_needs_a_program(require_tool):
    require_tool("no-such-program")

@pytest.mark.skip(reason="for no reason")
def test_is_marked():
    pass

@pytest.mark.xfail(reason="known", strict=True)
def test_is_expected_to_fail():
    assert False

def test_passes(require_tool):
    assert require_tool("sh")
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (tmp_path / "test_skips.py").write_text(SKIPS)
    (tmp_path / "test_whole_file.py").write_text("import pytest\npytest.importorskip('no_such_module')\n")
    return tmp_path


def test_skips_pass_for_a_user_and_say_what_is_missing(suite: Path, run: Run) -> None:
    result = run("pytest", "-rs", "-c", ROOT / "pyproject.toml", "--rootdir", suite, suite)
    assert result.returncode == 0, result.stdout
    assert "1 passed, 3 skipped, 1 xfailed" in result.stdout
    assert "needs the program no-such-program" in result.stdout


@pytest.mark.parametrize("processes", ["0", "2"])
def test_skips_fail_in_ci_and_say_what_is_missing(suite: Path, run: Run, processes: str) -> None:
    command = ["-n", processes, "--continue-on-collection-errors", "-c", str(ROOT / "pyproject.toml")]
    result = run("pytest", *command, "--rootdir", suite, suite, CI="true")
    assert result.returncode == 1, result.stdout
    assert "1 failed, 1 passed, 1 xfailed, 2 errors" in result.stdout
    assert "needs the program no-such-program" in result.stdout
