"""`make bench-all` runs every benchmark, and one that fails does not stop the others."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from types import ModuleType

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def bench_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """`benchmarks/all.py` as a module, which looks for benchmarks in a folder of its own."""
    spec = importlib.util.spec_from_file_location("bench_all", FOLDER / "all.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "benchmarks").mkdir()
    monkeypatch.setattr(module, "ROOT", tmp_path)
    return module


def run(module: Any, monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["all.py", *words])
    module.main()


def test_every_benchmark_is_among_them(bench_all: ModuleType) -> None:
    scripts = {path.name for path in FOLDER.glob("*.py") if "__main__" in path.read_text()}
    assert {each.words.split()[0] for each in bench_all.BENCHMARKS} == scripts - {"all.py"}
    names = [each.name for each in bench_all.BENCHMARKS]
    assert len(names) == len(set(names)), "each has a file of its own"


def test_one_that_fails_is_told_and_stops_no_other(
    bench_all: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "benchmarks" / "good.py").write_text("import sys; print('| a table |', sys.argv[1:])")
    (tmp_path / "benchmarks" / "bad.py").write_text("print('half'); raise SystemExit(3)")
    names = [bench_all.Benchmark("bad", "bad.py"), bench_all.Benchmark("good", "good.py --rounds 2")]
    monkeypatch.setattr(bench_all, "BENCHMARKS", names)

    with pytest.raises(SystemExit, match="error: these failed: bad"):
        run(bench_all, monkeypatch)

    written = tmp_path / "build" / "benchmarks"
    assert "**It failed with exit code 3.**\n\nhalf" in (written / "bad.md").read_text()
    good = (written / "good.md").read_text()
    assert good.startswith("# good\n\n    python benchmarks/good.py --rounds 2\n")
    assert "| a table | ['--rounds', '2']" in good


def test_one_whose_environment_cannot_be_made_stops_no_other(
    bench_all: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "benchmarks" / "good.py").write_text("print('| a table |')")
    names = [bench_all.Benchmark("lonely", "good.py", group="bench-nothing"), bench_all.Benchmark("good", "good.py")]
    monkeypatch.setattr(bench_all, "BENCHMARKS", names)  # and the folder has no `tools` that make an environment

    with pytest.raises(SystemExit, match="error: these failed: lonely"):
        run(bench_all, monkeypatch)

    written = tmp_path / "build" / "benchmarks"
    told = "**It failed: the environment for the group bench-nothing could not be made.**"
    assert told in (written / "lonely.md").read_text()
    assert "| a table |" in (written / "good.md").read_text()


def test_a_pattern_that_matches_none_is_an_error(
    bench_all: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(bench_all, monkeypatch, "--only", "nothing like it")
    assert "no benchmark matches --only nothing like it: --list prints their names" in capsys.readouterr().err
