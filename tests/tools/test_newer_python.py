"""`make echo` works on a machine whose only Python is newer than the tested ones, and says once that it is untested."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Plays a CPython of another version: what it runs is real but for its version; venv and pip only note what they were
# asked for, and "install" the command that `make echo` starts.
SHIM = """#!/bin/sh
case "$1 $2" in
"-m venv") mkdir -p "$4/bin" && cp "$0" "$4/bin/python"; exit ;;
"-m pip")
    echo "$@" >> "$LOG"
    command=$(dirname "$0")/esockd
    case "$*" in *--group*) printf '#!/bin/sh\\necho "serving: $*"\\n' > "$command"; chmod +x "$command" ;; esac
    exit ;;
esac
exec {real} -c '
import runpy, sys
sys.version_info, sys.version, sys.executable = ({version}, 0, "final", 0), "3.x (fake)", "'"$0"'"
option, *arguments = sys.argv[1:]
if option == "-c":
    sys.argv = ["-c", *arguments[1:]]
    exec(arguments[0])
else:
    sys.argv, module = arguments, arguments[0]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
' "$@"
"""


def play(path: Path, version: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(SHIM.format(real=sys.executable, version=version))
    path.chmod(0o755)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What `make echo` needs of a clone, and a PATH with no Python on it."""
    clone = tmp_path / "clone"
    shutil.copytree(ROOT / "tools", clone / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    for path in ["Makefile", "pyproject.toml", "constraints.txt", "packages/esockd-core/pyproject.toml"]:
        (clone / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, clone / path)
    tools = tmp_path / "tools"
    tools.mkdir()
    for program in ["chmod", "cp", "dirname", "grep", "ls", "make", "mkdir", "sed", "sh", "sort"]:
        found = shutil.which(program)
        assert found
        (tools / program).symlink_to(found)
    return clone


def make(clone: Path, target: str) -> subprocess.CompletedProcess[str]:
    path = f"{clone.parent / 'bin'}:{clone.parent / 'tools'}"
    environment = {"PATH": path, "LOG": str(clone.parent / "pip.log"), "HOME": str(clone)}
    command = [str(clone.parent / "tools" / "make"), target]
    return subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, timeout=50, check=False)


def pip_calls(clone: Path) -> list[str]:
    log = clone.parent / "pip.log"
    return log.read_text().splitlines() if log.exists() else []


@pytest.mark.parametrize("name", ["python3", "python", "python3.99"])
def test_make_echo_takes_a_python_newer_than_the_tested_ones_under_any_name(clone: Path, name: str) -> None:
    play(clone.parent / "bin" / name, "3, 99")
    first, second = make(clone, "echo"), make(clone, "echo")
    for result in (first, second):
        assert result.returncode == 0, result.stderr
        assert result.stdout == "serving: open echo 5000\n"
    notice = "notice: esockd is tested on Python 3.11, 3.12, 3.13, and not on this one yet"
    assert [line for line in first.stderr.splitlines() if line.startswith("notice")] == [notice]
    assert second.stderr == ""
    install = next(call for call in pip_calls(clone) if "--group run" in call)
    assert "--constraint" not in install  # the pinned versions may not exist for it: the bounds decide


def test_a_tested_python_goes_before_a_newer_one_and_takes_the_pinned_versions(clone: Path) -> None:
    play(clone.parent / "bin" / "python3", "3, 99")
    play(clone.parent / "bin" / "python3.12", "3, 12")
    result = make(clone, "echo")
    assert result.returncode == 0, result.stderr
    assert "notice" not in result.stderr
    install = next(call for call in pip_calls(clone) if "--group run" in call)
    assert f"--constraint {clone / 'constraints.txt'}" in install


def test_a_python_that_is_too_old_is_not_taken(clone: Path) -> None:
    play(clone.parent / "bin" / "python3", "3, 10")
    result = make(clone, "echo")
    assert result.returncode == 2
    assert "No working Python 3.11 or newer on PATH" in result.stderr
    assert pip_calls(clone) == []


def test_no_package_has_an_upper_bound_on_the_version_of_python() -> None:
    manifests = [ROOT / "pyproject.toml", *ROOT.glob("packages/*/pyproject.toml")]
    assert len(manifests) == 7
    for manifest in manifests:
        assert 'requires-python = ">=3.11"' in manifest.read_text(), manifest
