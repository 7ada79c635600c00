"""`make wheels` tests each wheel where `make test` does not: on other Pythons, without the rest of the workspace."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.patience import PATIENCE_S

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the tools are scripts, in no package that is installed

from tools.check_wheels import ONCE, pytest_arguments
from tools.wheel_environments import ROOT, Python, add, check_that_c_compiles, plan

from tools import wheel_environments

if TYPE_CHECKING:
    from collections.abc import Callable

OWN = (3, 11)
COMPLETE = Python(OWN, sys.executable, "")


def test_the_newest_python_runs_asyncio_and_uvloop_and_those_between_run_trio() -> None:
    assert plan({(3, 11): "/11", (3, 12): "/12", (3, 13): "/13", (3, 14): "/14"}, OWN) == [
        COMPLETE,
        Python((3, 12), "/12", "trio"),
        Python((3, 13), "/13", "trio"),
        Python((3, 14), "/14", "asyncio,uvloop"),
    ]


def test_a_single_other_python_runs_every_event_loop() -> None:
    assert plan({(3, 11): "/11", (3, 12): "/12"}, OWN) == [COMPLETE, Python((3, 12), "/12", "asyncio,uvloop,trio")]


def test_without_another_python_wheels_are_tested_on_this_one() -> None:
    assert plan({(3, 11): "/11"}, OWN) == plan({}, OWN) == [Python(OWN, sys.executable, "asyncio")]


def test_whichever_python_runs_make_test_the_others_run_the_tests_of_wheels() -> None:
    assert [(each.version, each.loops) for each in plan({(3, 11): "/11", (3, 13): "/13"}, (3, 13))] == [
        ((3, 13), ""),
        ((3, 11), "asyncio,uvloop,trio"),
    ]


def test_on_the_python_of_make_test_a_wheel_only_has_to_be_complete() -> None:
    assert pytest_arguments(COMPLETE, "core")[-1] == str(ROOT / "tests" / "distribution")
    assert str(ROOT / "tests" / "core") not in pytest_arguments(COMPLETE, "core")


def test_tests_of_several_packages_run_against_the_wheel_that_requires_them_all() -> None:
    python = Python((3, 13), "/13", "asyncio,uvloop")
    expected = [str(ROOT / "tests" / folder) for folder in ("distribution", "cli", "integration")]
    assert pytest_arguments(python, "cli")[-3:] == expected
    assert "--loops=asyncio,uvloop" in pytest_arguments(python, "cli")


def test_every_test_that_is_left_out_exists() -> None:
    assert [file for file in ONCE if not (ROOT / "tests" / file).is_file()] == []


@pytest.fixture
def told_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Path], Python]:
    """Makes an interpreter that tells its compiler and the folder of its headers, after a warning."""
    monkeypatch.setattr(wheel_environments, "WORK", tmp_path)
    monkeypatch.delenv("CC", raising=False)

    def make(compiler: str, include: Path) -> Python:
        interpreter = tmp_path / "python"
        interpreter.write_text(f"#!/bin/sh\necho 'a warning' >&2\necho '{compiler}'\necho '{include}'\n")
        interpreter.chmod(0o755)
        return Python((3, 12), str(interpreter), "trio")

    return make


def test_a_compiler_that_is_missing_is_named(told_by: Callable[[str, Path], Python], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"no-such-compiler, with which Python 3\.12 compiles"):
        check_that_c_compiles(told_by("no-such-compiler -pthread", tmp_path))


def test_headers_that_are_missing_are_named(told_by: Callable[[str, Path], Python], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=rf"Python 3\.12 has no headers in {tmp_path}"):
        check_that_c_compiles(told_by("sh", tmp_path))


def test_another_compiler_may_be_named(
    told_by: Callable[[str, Path], Python], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "Python.h").touch()
    monkeypatch.setenv("CC", "sh -c")
    check_that_c_compiles(told_by("no-such-compiler", tmp_path))


@pytest.fixture
def environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """That of a wheel and that of what its tests need, each with a module of its own and one that both have."""
    monkeypatch.setattr(wheel_environments, "WORK", tmp_path)
    for name in ("wheel", "tests"):
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / name], check=True, timeout=PATIENCE_S)
        [packages] = (tmp_path / name).glob("lib/python*/site-packages")
        (packages / "in_both.py").write_text(f"print({name!r})")
        (packages / f"in_{name}.py").write_text(f"print({name!r})")
    return tmp_path / "wheel", tmp_path / "tests"


def said(*command: str | Path) -> list[str]:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE_S).stdout.split()


def test_what_a_wheel_requires_is_imported_before_what_its_tests_need(environments: tuple[Path, Path]) -> None:
    wheel, tests = environments
    add(wheel, tests)
    assert said(wheel / "bin" / "python", "-c", "import in_both, in_tests") == ["wheel", "tests"]


def test_programs_that_tests_need_import_the_wheel(environments: tuple[Path, Path]) -> None:
    wheel, tests = environments
    program = tests / "bin" / "serve"
    program.write_text(f"#!{tests}/bin/python\nimport in_tests, in_wheel\n")
    program.chmod(0o755)
    add(wheel, tests)
    assert said(wheel / "bin" / "serve") == ["tests", "wheel"]
