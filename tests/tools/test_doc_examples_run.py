"""`make doc-examples` runs what pages and docstrings show, and fails with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

Run = Callable[..., CompletedProcess[str]]
ROOT = Path(__file__).resolve().parents[2]

FENCE = "```"


@pytest.fixture
def page(workspace: Path) -> Path:
    return workspace / "page.md"


def examples(run: Run, path: Path) -> CompletedProcess[str]:
    return run("pytest", "-q", "--rootdir", ".", "-c", "tools/doc_examples.ini", path)


def block(code: str) -> str:
    return f"{FENCE}python\n{code}\n{FENCE}\n\n"


def test_an_example_that_fails_in_a_page_fails_the_gate(page: Path, run: Run) -> None:
    page.write_text(block("assert 1 + 1 == 3"))
    result = examples(run, page)
    assert result.returncode == 1
    assert "1 failed" in result.stdout


def test_an_example_that_fails_in_a_docstring_fails_the_gate(workspace: Path, run: Run) -> None:
    module = workspace / "packages" / "planted.py"
    module.write_text('"""A module.\n\n>>> 1 + 1\n3\n"""\n')
    result = examples(run, module)
    assert result.returncode == 1
    assert "1 failed" in result.stdout


def test_an_example_that_warns_fails_the_gate(page: Path, run: Run) -> None:
    page.write_text(block("import warnings\n\nwarnings.warn('old')"))
    assert examples(run, page).returncode == 1


def test_blocks_of_one_page_share_a_namespace(page: Path, run: Run) -> None:
    page.write_text(block("answer = 42") + block("assert answer == 42"))
    result = examples(run, page)
    assert result.returncode == 0
    assert "2 passed" in result.stdout


def test_only_the_block_after_skip_next_is_left_out(page: Path, run: Run) -> None:
    page.write_text("<!-- skip: next -->\n" + block("assert False") + block("assert False, 'this one runs'"))
    result = examples(run, page)
    assert result.returncode == 1
    assert "1 failed" in result.stdout
    assert "this one runs" in result.stdout


def test_the_example_in_contributing_runs_on_three_backends(tmp_path: Path, run: Run) -> None:
    _, _, rest = (ROOT / "CONTRIBUTING.md").read_text().partition(f"{FENCE}python\n")
    (tmp_path / "test_example.py").write_text(rest.partition(FENCE)[0])
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    result = run("pytest", "-c", ROOT / "pyproject.toml", "--rootdir", tmp_path, tmp_path)
    assert result.returncode == 0, result.stdout
    assert "3 passed" in result.stdout
