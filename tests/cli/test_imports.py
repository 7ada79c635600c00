"""What a command imports: that is what it costs to start one, and no test asserts a time."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from tests.cli.running import Instance

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = """
import json, sys
from esockd_cli._main import run_command_line
status = 0
try:
    status = run_command_line(sys.argv[1:])
except SystemExit as error:
    status = error.code
print(json.dumps([status, sorted(sys.modules)]), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def edge() -> Iterator[Instance]:
    """One listener."""
    with Instance("echo", "127.0.0.1:0") as instance:
        instance.read_port()
        yield instance


def imported(edge: Instance, *arguments: str) -> set[str]:
    """The modules that a command line has imported in the end."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        env=edge.environment,
    )
    status, modules = json.loads(done.stderr.splitlines()[-1])
    assert status == 0
    return {*modules}


def test_the_version_needs_neither_parser_nor_library(edge: Instance) -> None:
    assert imported(edge, "--version").isdisjoint({"typer", "anyio", "asyncio", "esockd_core", "rich"})


def test_the_list_of_commands_needs_the_parser_alone(edge: Instance) -> None:
    modules = imported(edge, "--help")
    assert "typer" in modules
    assert modules.isdisjoint({"anyio", "asyncio", "esockd_core", "rich", "pydantic"})


@pytest.mark.parametrize("arguments", [("stats",), ("ps",), ("rules", "list"), ("set", "backlog=1024")])
def test_asking_an_instance_needs_nothing_that_serves_or_renders(edge: Instance, arguments: tuple[str, ...]) -> None:
    modules = imported(edge, *arguments)
    assert "esockd_core._remote.client" in modules
    rooms = ("esockd_core._listening", "esockd_core._loops", "esockd_core._forwarding", "esockd_cli.top.dashboard")
    assert [each for each in modules if each.startswith(rooms)] == []
    assert modules.isdisjoint({"rich", "trio", "uvloop", "cryptography", "pydantic"})


@pytest.mark.parametrize("arguments", [("cidr", "explain", "10.0.0.0/8"), ("proxy", "encode", "--local")])
def test_the_small_tools_need_no_event_loop(edge: Instance, arguments: tuple[str, ...]) -> None:
    assert imported(edge, *arguments).isdisjoint({"anyio", "asyncio", "esockd_core", "rich"})


def test_a_server_never_imports_the_renderer() -> None:
    program = "import sys, esockd_cli._open, esockd_cli._run, esockd_core.handlers; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    modules = done.stdout.split()
    assert "esockd_core._listening.server" in modules
    assert [each for each in modules if each == "rich" or each.startswith("esockd_cli.top")] == []
