"""When the methods in C are used, and that nothing but speed depends on it."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

import pytest
from tests.patience import PATIENCE_S

import esockd_core
from esockd_core._loops.asyncio.speedups import KNOWN_INTERFACE

# Says what core does in a fresh process, beside a package `esockd_speedups` that plays the real one.
PROBE = """
from esockd_core._loops.asyncio import accept, speedups
print(speedups.IN_USE, speedups.AsyncioStream.send_nowait.__name__)
"""
KNOWN = f"INTERFACE = {KNOWN_INTERFACE}"
PLAYED = {
    "of another version": "INTERFACE = 0\nbind = None",
    "that says no version": "",
    "that does not find what it needs": f"{KNOWN}\ndef bind(**_):\n    raise ImportError('not here')",
    "that cannot be imported": "raise ImportError('no such symbol')",
}
# What the methods in C repeat.
REPEATED = {
    "_loops/asyncio/stream.py": ["data_received", "_receive", "send", "send_nowait"],
    "_loops/asyncio/resuming.py": ["resume"],
    "_connection/receiving.py": ["receive"],
}


def ask(folder: Path | None = None, **environment: str) -> str:
    paths = [str(folder)] if folder else []
    inherited = {name: value for name, value in os.environ.items() if name != "ESOCKD_SPEEDUPS"}
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {paths!r}\n{PROBE}"],
        env=inherited | environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.strip()


def test_they_are_used_where_they_have_to_be_and_nowhere_else() -> None:
    """`make wheels` says where, and switches them off for one of its runs."""
    installed, switch = find_spec("esockd_speedups") is not None, os.environ.get("ESOCKD_SPEEDUPS", "1")
    wanted = os.environ.get("ESOCKD_EXPECT_SPEEDUPS", str(int(installed and switch != "0"))) == "1"
    assert ask(ESOCKD_SPEEDUPS=switch) == f"{wanted} send_nowait"


def test_an_environment_variable_switches_them_off() -> None:
    assert ask(ESOCKD_SPEEDUPS="0") == "False send_nowait"


@pytest.mark.parametrize("kind", PLAYED)
def test_a_distribution_is_left_alone(kind: str, tmp_path: Path) -> None:
    (tmp_path / "esockd_speedups.py").write_text(PLAYED[kind])
    assert ask(tmp_path) == "False send_nowait"


def test_an_empty_folder_of_its_name_changes_nothing(tmp_path: Path) -> None:
    """What removing a package may leave."""
    (tmp_path / "esockd_speedups" / "__pycache__").mkdir(parents=True)
    assert ask(tmp_path) == ask()


def test_what_it_returns_stands_for_the_methods_in_python(tmp_path: Path) -> None:
    (tmp_path / "esockd_speedups.py").write_text(
        f"{KNOWN}\ndef bind(*, stream, **_):\n    return {{'send_nowait': stream.send}}"
    )
    assert ask(tmp_path) == "True send"


def test_without_the_table_of_anyio_they_are_left_alone(tmp_path: Path) -> None:
    """Then any task may be in a cancel scope, which the methods in C would not see."""
    (tmp_path / "esockd_speedups.py").write_text(f"{KNOWN}\ndef bind(**_):\n    return {{}}")
    (tmp_path / "sitecustomize.py").write_text("import anyio._backends._asyncio as backend\ndel backend._task_states")
    assert ask(tmp_path, PYTHONPATH=str(tmp_path)) == "False send_nowait"


def test_what_they_stand_for_is_what_they_were_written_for() -> None:
    """If this fails, "The methods in C" in CONTRIBUTING.md says what to do."""
    digest = sha256()
    for file, names in REPEATED.items():
        text = (Path(esockd_core.__file__).parent / file).read_text()
        functions = {
            node.name: node
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        for name in names:
            digest.update((ast.get_source_segment(text, functions[name]) or "").encode())
    assert digest.hexdigest()[:16] == "3240d570e7f5fe9d"
