"""A short, repeatable run of the fuzz target, with the built-in engine and with libFuzzer where that is installed."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from types import ModuleType

PROGRAM = Path(__file__).with_name("fuzz_decode.py")
# A program that traces itself is no program for a coverage tool to trace.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}

# Runs by engine. libFuzzer is there with the dependency group "fuzz"; the built-in engine is everywhere.
ENGINES = {"builtin": "1500"} | ({"atheris": "20000"} if importlib.util.find_spec("atheris") else {})

PLANTED = """
def target(data):
    if data[:1] == b"P":
        if data[1:2] == b"X":
            if data[2:3] == b"\\x07":
                raise RuntimeError("found")
"""


@pytest.fixture(scope="module")
def fuzz_decode() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz_decode", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PROGRAM), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=55, check=False, env=ENVIRONMENT)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_short_guided_run_finds_no_fault(engine: str) -> None:
    result = run("--engine", engine, "--runs", ENGINES[engine], "--seconds", "15")
    assert result.returncode == 0, result.stderr


def test_the_target_holds_for_every_prefix_of_every_seed(fuzz_decode: Any) -> None:
    for seed in fuzz_decode.SEEDS:
        for end in range(0, len(seed) + 1, 1 if len(seed) < 120 else 11):
            fuzz_decode.check(seed[:end])


def test_the_engine_finds_a_fault_that_blind_chance_would_not(fuzz_decode: Any, tmp_path: Path) -> None:
    """Three bytes in a row: one try in sixteen million without coverage, some thousands with it."""
    planted = tmp_path / "planted.py"
    namespace: dict[str, Any] = {}
    exec(compile(PLANTED, str(planted), "exec"), namespace)
    with pytest.raises(RuntimeError, match="found") as caught:
        fuzz_decode.fuzz(namespace["target"], folder=str(tmp_path), seeds=(b"abc",), runs=200_000)
    assert caught.value.__notes__[0].startswith("input: b'PX\\x07")


def test_the_target_sees_a_codec_that_lies(fuzz_decode: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = fuzz_decode.decode
    monkeypatch.setattr(fuzz_decode, "decode", lambda data, **options: (honest(data, **options)[0], len(data)))
    with pytest.raises(AssertionError):
        fuzz_decode.check(fuzz_decode.SEEDS[4] + b"x")
