"""Runs a gate in a workspace of its own, where something is broken on purpose."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., subprocess.CompletedProcess[str]]

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ["cidr", "proxyproto", "ratelimit", "core", "cli"]
SCRIPTS = Path(sys.executable).parent


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a program of this environment in tmp_path, free of what this test run itself put into the environment."""

    def run(program: str, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        ours = ("COVERAGE_", "PYTEST_", "CI", "COV_", "PYTHONPATH")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        return subprocess.run(
            [SCRIPTS / program, *arguments],
            cwd=tmp_path,
            env=inherited | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=50,
            check=False,
        )

    return run


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """The tools and the settings over five empty packages, to break at will."""
    for name in PACKAGES:
        package = tmp_path / "packages" / f"esockd-{name}" / "src" / f"esockd_{name}"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
    shutil.copytree(ROOT / "tools", tmp_path / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    settings = (ROOT / "pyproject.toml").read_text()
    rooms = r'^\[\[tool\.importlinter\.contracts\]\]\nname = "Rooms of core.*?^\]\n'  # which an empty package lacks
    (tmp_path / "pyproject.toml").write_text(re.sub(rooms, "", settings, flags=re.MULTILINE | re.DOTALL))
    return tmp_path
