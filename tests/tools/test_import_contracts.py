"""Each import contract of pyproject.toml is broken by the import it forbids, and by nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from subprocess import CompletedProcess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

Run = Callable[..., CompletedProcess[str]]


def plant(workspace: Path, module: str, line: str) -> None:
    """Add an import to a module, which comes into being if it is not there."""
    package, *rest = module.split(".")
    folder = workspace / "packages" / package.replace("_", "-") / "src" / package
    path = folder / f"{'/'.join(rest) or '__init__'}.py"
    with path.open("a") as file:
        file.write(f"\n{line}\n")


def lint_imports(workspace: Path, run: Run) -> CompletedProcess[str]:
    sources = os.pathsep.join(str(path) for path in workspace.glob("packages/*/src"))
    return run("lint-imports", "--no-cache", PYTHONPATH=sources, COLUMNS="200")


def broken_contracts(result: CompletedProcess[str]) -> list[str]:
    return [line.partition(":")[0] for line in result.stdout.splitlines() if line.endswith(" BROKEN")]


FORBIDDEN = [
    ("esockd_cidr._planted", "import esockd_core", "One direction"),
    ("esockd_core._planted", "import esockd_cli", "One direction"),
    ("esockd_cidr._planted", "import esockd_proxyproto", "One direction"),
    ("esockd_ratelimit._planted", "from esockd_cidr import AccessList", "One direction"),
    ("esockd_cidr._planted", "import anyio", "Sans-IO"),
    ("esockd_cidr._planted", "from asyncio import sleep", "Sans-IO"),
    ("esockd_proxyproto._planted", "import time", "Sans-IO"),
    ("esockd_proxyproto._planted", "def late() -> None:\n    import selectors", "Sans-IO"),
    ("esockd_ratelimit", "import redis.asyncio", "Extras stay extra"),
    ("esockd_core._planted", "from cryptography import x509", "Extras stay extra"),
    ("esockd_cli._planted", "from esockd_core import _planted", "Front doors"),
    ("esockd_core._planted", "from esockd_cidr._planted import Rule", "Front doors"),
]


@pytest.mark.parametrize(("module", "line", "contract"), FORBIDDEN)
def test_a_forbidden_import_breaks_its_contract(
    workspace: Path, run: Run, module: str, line: str, contract: str
) -> None:
    for package in ["esockd_cidr", "esockd_core"]:
        plant(workspace, f"{package}._planted", "")
    plant(workspace, module, line)
    result = lint_imports(workspace, run)
    assert (result.returncode, broken_contracts(result)) == (1, [contract]), result.stdout


@pytest.mark.parametrize("package", ["esockd_cidr", "esockd_proxyproto"])
def test_a_front_door_that_leads_to_anyio_breaks_its_contract(workspace: Path, run: Run, package: str) -> None:
    plant(workspace, f"{package}.listener", "import anyio")
    plant(workspace, package, f"from {package} import listener")
    result = lint_imports(workspace, run)
    assert (result.returncode, broken_contracts(result)) == (1, ["Extras stay extra"]), result.stdout


def test_what_the_contracts_allow_keeps_them(workspace: Path, run: Run) -> None:
    plant(workspace, "esockd_cidr.listener", "import anyio")
    plant(workspace, "esockd_proxyproto.listener", "import anyio")
    plant(workspace, "esockd_proxyproto.streams", "import anyio")
    plant(workspace, "esockd_ratelimit.redis", "import redis.asyncio")
    plant(workspace, "esockd_core._x509", "from cryptography import x509")
    plant(workspace, "esockd_core._planted", "import esockd_cidr, esockd_proxyproto, esockd_ratelimit")
    plant(workspace, "esockd_cli._planted", "import time, esockd_core, esockd_cidr.listener")
    result = lint_imports(workspace, run)
    assert (result.returncode, broken_contracts(result)) == (0, []), result.stdout
