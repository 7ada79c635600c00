"""When the methods in C are used, and that nothing but speed depends on it."""

from __future__ import annotations

import os
import subprocess
import sys
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

import pytest
from tests.patience import PATIENCE_S

from esockd_core._loops.asyncio import stream

# Says what core does in a fresh process, beside a package `esockd_speedups` that plays the real one.
PROBE = """
from esockd_core._loops.asyncio import accept, speedups
print(speedups.IN_USE, speedups.AsyncioStream.send.__code__.co_filename.endswith("stream.py"))
"""
PLAYED = {
    "of another version": "INTERFACE = 0\nbind = None",
    "that says no version": "",
    "that does not find what it needs": "INTERFACE = 1\ndef bind(**_):\n    raise ImportError('not here')",
    "that cannot be imported": "raise ImportError('no such symbol')",
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
    assert ask(ESOCKD_SPEEDUPS=switch) == f"{wanted} True"


def test_an_environment_variable_switches_them_off() -> None:
    assert ask(ESOCKD_SPEEDUPS="0") == "False True"


@pytest.mark.parametrize("kind", PLAYED)
def test_a_distribution_is_left_alone(kind: str, tmp_path: Path) -> None:
    (tmp_path / "esockd_speedups.py").write_text(PLAYED[kind])
    assert ask(tmp_path) == "False True"


def test_an_empty_folder_of_its_name_changes_nothing(tmp_path: Path) -> None:
    """What removing a package may leave."""
    (tmp_path / "esockd_speedups" / "__pycache__").mkdir(parents=True)
    assert ask(tmp_path) == ask()


def test_what_it_returns_stands_for_the_methods_in_python(tmp_path: Path) -> None:
    (tmp_path / "esockd_speedups.py").write_text(
        "INTERFACE = 1\ndef bind(*, stream, **_):\n    return {'send': stream.send_nowait}"
    )
    assert ask(tmp_path) == "True True"


def test_without_the_table_of_anyio_they_are_left_alone(tmp_path: Path) -> None:
    """Then any task may be in a cancel scope, which the methods in C would not see."""
    (tmp_path / "esockd_speedups.py").write_text("INTERFACE = 1\ndef bind(**_):\n    return {}")
    (tmp_path / "sitecustomize.py").write_text("import anyio._backends._asyncio as backend\ndel backend._task_states")
    assert ask(tmp_path, PYTHONPATH=str(tmp_path)) == "False True"


def test_what_they_stand_for_is_what_they_were_written_for() -> None:
    """If this fails, make the same change in esockd-speedups, raise INTERFACE and KNOWN_INTERFACE, and renew it."""
    lines = Path(stream.__file__).read_text()
    methods = [
        part.split("\n\n    ")[0]
        for name in ("def data_received", "async def _receive", "async def send", "def send_nowait")
        for part in [lines[lines.index(f"    {name}(") :]]
    ]
    assert all(len(method.splitlines()) > 5 for method in methods)
    digest = sha256("".join(methods).encode()).hexdigest()
    assert digest.startswith("67d7e4cbc13a28b5")
