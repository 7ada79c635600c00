"""What a process that serves, or only prints its help, does not pay for."""

from __future__ import annotations

import subprocess
import sys

import pytest

PARSER = {"esockd_cli.top", "esockd_cli.top.command"}


def loaded(*statements: str) -> set[str]:
    """The modules that statements bring in."""
    probe = "; ".join((*statements, "import sys", "print(*sys.modules, sep='\\n')"))
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=50, check=True)
    return set(result.stdout.split())


@pytest.mark.parametrize("module", ["esockd_cli._open", "esockd_cli._run", "esockd_cli._app"])
def test_a_process_that_serves_knows_nothing_of_the_screen(module: str) -> None:
    modules = loaded(f"import {module}")
    assert {each for each in modules if each.startswith("esockd_cli.top")} <= PARSER
    assert not {each for each in modules if each.startswith(("rich.live", "curses"))}


def test_lines_need_no_screen() -> None:
    modules = loaded("import esockd_cli.top.show")
    assert modules.isdisjoint({"esockd_cli.top.screen", "esockd_cli.top.session", "esockd_cli.top.terminal", "rich"})
