"""`--loops` runs the tests of some event loops, and those that are about none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

Run = Callable[..., CompletedProcess[str]]
ROOT = Path(__file__).resolve().parents[2]

TESTS = """
import pytest

@pytest.mark.anyio
async def test_on_each():
    pass

@pytest.mark.parametrize("loop", ["asyncio", "uvloop", "trio"])
def test_of_programs(loop):
    pass

def test_of_none():
    pass
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (tmp_path / "test_loops.py").write_text(TESTS)
    return tmp_path


@pytest.mark.parametrize(
    ("options", "outcome"),
    [((), "7 passed"), (("--loops", "asyncio"), "3 passed, 4 deselected"), (("--loops=uvloop,trio",), "5 passed, 2")],
)
def test_loops_that_are_not_named_are_left_out(suite: Path, run: Run, options: tuple[str, ...], outcome: str) -> None:
    result = run("pytest", *options, "-c", ROOT / "pyproject.toml", "--rootdir", suite, suite)
    assert result.returncode == 0, result.stdout
    assert outcome in result.stdout


def test_an_unknown_loop_is_an_error(suite: Path, run: Run) -> None:
    result = run("pytest", "--loops=trip", "-c", ROOT / "pyproject.toml", "--rootdir", suite, suite)
    assert result.returncode == 4
    assert "--loops takes asyncio, uvloop, trio, not trip" in result.stdout
