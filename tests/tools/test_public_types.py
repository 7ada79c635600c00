"""`make types` finds a public name that is not fully typed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

Run = Callable[..., CompletedProcess[str]]
ROOT = Path(__file__).resolve().parents[2]

TYPED = '"""A package."""\n\n\ndef double(number: int) -> int:\n    """Twice the number."""\n    return 2 * number\n'
UNTYPED = '"""A package."""\n\n\ndef double(number):\n    """Twice the number."""\n    return 2 * number\n'


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "planted"
    folder.mkdir()
    (folder / "py.typed").touch()
    return folder


def check(run: Run, package: Path) -> CompletedProcess[str]:
    script = ROOT / "tools" / "check_public_types.py"
    return run("python", script, package.name, PYTHONPATH=str(package.parent), PYRIGHT_PYTHON_IGNORE_WARNINGS="1")


def test_a_fully_typed_package_passes(package: Path, run: Run) -> None:
    (package / "__init__.py").write_text(TYPED)
    result = check(run, package)
    assert result.returncode == 0, result.stdout
    assert "1 of 1 public names" in result.stdout


def test_an_untyped_name_in_a_public_module_fails_and_is_named(package: Path, run: Run) -> None:
    (package / "__init__.py").write_text(TYPED)
    (package / "listener.py").write_text(UNTYPED)
    result = check(run, package)
    assert result.returncode == 1
    assert "planted.listener.double" in result.stdout


def test_a_package_without_py_typed_fails(package: Path, run: Run) -> None:
    (package / "__init__.py").write_text(TYPED)
    (package / "py.typed").unlink()
    result = check(run, package)
    assert result.returncode == 1
    assert "py.typed" in result.stdout
