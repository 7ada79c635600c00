"""tools/pythons.py finds the interpreters that work, and only those."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

Run = Callable[..., CompletedProcess[str]]
ROOT = Path(__file__).resolve().parents[2]


def program(path: Path, script: str) -> None:
    """Write a shell script that plays an interpreter."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def pythons(run: Run, *folders: Path, pyenv: Path) -> list[str]:
    path = ":".join(map(str, folders))
    result = run("python", ROOT / "tools" / "pythons.py", PATH=path, PYENV_ROOT=str(pyenv))
    assert result.returncode == 0, result.stdout
    return result.stdout.splitlines()


def test_a_shim_that_does_not_run_is_not_a_python(tmp_path: Path, run: Run) -> None:
    program(tmp_path / "shims" / "python3.11", "echo 'pyenv: version 3.11 is not installed' >&2; exit 127")
    program(tmp_path / "shims" / "python3.12", "echo CPython 3 12 1 /good")
    (tmp_path / "shims" / "python3.13").symlink_to("gone")
    assert pythons(run, tmp_path / "shims", pyenv=tmp_path) == ["/good"]


def test_another_implementation_is_not_a_cpython(tmp_path: Path, run: Run) -> None:
    program(tmp_path / "bin" / "python3.11", "echo PyPy 3 11 11 /pypy")
    assert pythons(run, tmp_path / "bin", pyenv=tmp_path) == []


def test_the_newest_patch_of_each_version_is_taken_from_path_and_pyenv(tmp_path: Path, run: Run) -> None:
    program(tmp_path / "bin" / "python3.11", "echo CPython 3 11 2 /old")
    program(tmp_path / "bin" / "python3.13", "echo CPython 3 13 0 /only")
    program(tmp_path / "pyenv" / "versions" / "3.11.10" / "bin" / "python3.11", "echo CPython 3 11 10 /new")
    assert pythons(run, tmp_path / "bin", pyenv=tmp_path / "pyenv") == ["/new", "/only"]


def test_a_version_that_is_not_supported_is_left_out(tmp_path: Path, run: Run) -> None:
    program(tmp_path / "bin" / "python3.11", "echo CPython 3 10 4 /older-than-its-name")
    assert pythons(run, tmp_path / "bin", pyenv=tmp_path) == []
