"""Each import contract of pyproject.toml is broken by the import it forbids, and by nothing else."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

ROOT = Path(__file__).resolve().parents[2]

Run = Callable[..., CompletedProcess[str]]


def plant(workspace: Path, module: str, line: str) -> None:
    """Add an import to a module, which comes into being if it is not there."""
    package, *rest = module.split(".")
    folder = workspace / "packages" / package.replace("_", "-") / "src" / package
    path = folder / f"{'/'.join(rest) or '__init__'}.py"
    path.parent.mkdir(exist_ok=True)
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
    ("esockd_core._planted", "import fcntl", "Not everywhere"),
    ("esockd_cli._planted", "from esockd_core import _planted", "Front doors"),
    ("esockd_core._planted", "import esockd_speedups", "Extras stay extra"),
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


A_CIRCLE = {"_one": "from esockd_cidr import _two", "_two": "from esockd_cidr import _three"}


@pytest.mark.parametrize(
    "closing",
    [
        "from esockd_cidr import _one",
        "def late() -> None:\n    import esockd_cidr._one",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from esockd_cidr._one import One",
    ],
)
def test_a_circle_of_imports_breaks_its_contract_and_is_shown(workspace: Path, run: Run, closing: str) -> None:
    for module, line in {**A_CIRCLE, "_three": closing}.items():
        plant(workspace, f"esockd_cidr.{module}", line)
    result = lint_imports(workspace, run)
    assert (result.returncode, broken_contracts(result)) == (1, ["No circles"]), result.stdout
    assert "esockd_cidr._one -> esockd_cidr._two -> esockd_cidr._three -> esockd_cidr._one" in result.stdout


def allow(workspace: Path, line: str) -> None:
    settings = workspace / "pyproject.toml"
    settings.write_text(
        settings.read_text().replace('type = "no_circles"', f'type = "no_circles"\nallowed = ["{line}"]')
    )


@pytest.mark.parametrize("closing", ["", "from esockd_cidr import _one"])
def test_a_circle_is_allowed_by_one_of_its_imports_and_an_allowance_without_a_circle_breaks_the_contract(
    workspace: Path, run: Run, closing: str
) -> None:
    for module, line in {**A_CIRCLE, "_three": closing}.items():
        plant(workspace, f"esockd_cidr.{module}", line)
    allow(workspace, "esockd_cidr._two -> esockd_cidr._three")
    result = lint_imports(workspace, run)
    assert broken_contracts(result) == ([] if closing else ["No circles"]), result.stdout
    assert ("_two -> esockd_cidr._three: no circle needs this allowance" in result.stdout) == (not closing)


def test_an_allowance_for_an_import_that_is_gone_breaks_the_contract(workspace: Path, run: Run) -> None:
    plant(workspace, "esockd_cidr._one", "")
    plant(workspace, "esockd_cidr._two", "")
    allow(workspace, "esockd_cidr._one -> esockd_cidr._two")
    assert broken_contracts(lint_imports(workspace, run)) == ["No circles"]


def test_a_room_of_core_imports_nothing_from_a_room_above_it(workspace: Path, run: Run) -> None:
    settings = (ROOT / "pyproject.toml").read_text()
    (workspace / "pyproject.toml").write_text(settings)
    contracts = tomllib.loads(settings)["tool"]["importlinter"]["contracts"]
    (rooms,) = (each["layers"] for each in contracts if each["name"].startswith("Rooms of core"))
    for room in " | ".join(rooms).split(" | "):
        plant(workspace, room, "")
    assert broken_contracts(lint_imports(workspace, run)) == []
    plant(workspace, "esockd_core._tls", "from esockd_core import _loops")
    assert broken_contracts(lint_imports(workspace, run)) == ["Rooms of core"]


def test_what_the_contracts_allow_keeps_them(workspace: Path, run: Run) -> None:
    plant(workspace, "esockd_cidr.listener", "import anyio")
    plant(workspace, "esockd_proxyproto.listener", "import anyio")
    plant(workspace, "esockd_proxyproto.streams", "import anyio")
    plant(workspace, "esockd_ratelimit.redis", "import redis.asyncio")
    plant(workspace, "esockd_core._tls.x509", "from cryptography import x509")
    plant(workspace, "esockd_core._planted", "import esockd_cidr, esockd_proxyproto, esockd_ratelimit")
    plant(workspace, "esockd_cli._planted", "import time, esockd_core, esockd_cidr.listener")
    result = lint_imports(workspace, run)
    assert (result.returncode, broken_contracts(result)) == (0, []), result.stdout
