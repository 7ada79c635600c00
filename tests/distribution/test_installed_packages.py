"""What an installed distribution is, for each esockd package that is installed here.

tools/check_wheels.py runs this in the environment of every wheel; in the repository it sees all that are not in C.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from importlib.metadata import Distribution, distributions
from importlib.resources import files

import pytest
from packaging.requirements import Requirement

EXTRAS = {
    "esockd-cidr": ["anyio", "asyncio", "trio", "uvloop"],
    "esockd-proxyproto": ["anyio", "asyncio", "trio", "uvloop"],
    "esockd-ratelimit": ["redis", "trio", "uvloop"],
    "esockd-speedups": ["anyio", "asyncio", "trio", "uvloop"],
    "esockd-core": ["OpenSSL", "cryptography", "redis", "trio", "uvloop"],
    "esockd-cli": ["OpenSSL", "cryptography", "redis", "trio", "uvloop"],
}
NEED_AN_EXTRA = [
    ("esockd-cidr", "esockd_cidr.listener", "anyio"),
    ("esockd-proxyproto", "esockd_proxyproto.listener", "anyio"),
    ("esockd-proxyproto", "esockd_proxyproto.streams", "anyio"),
    ("esockd-ratelimit", "esockd_ratelimit.redis", "redis"),
]
INSTALLED = {distribution.name: distribution for distribution in distributions() if distribution.name in EXTRAS}


def import_name(distribution: Distribution) -> str:
    return distribution.name.replace("-", "_")


@pytest.fixture(params=INSTALLED)
def distribution(request: pytest.FixtureRequest) -> Distribution:
    return INSTALLED[request.param]


def test_at_least_one_package_is_installed_here() -> None:
    assert INSTALLED


def test_a_package_says_that_it_is_typed(distribution: Distribution) -> None:
    assert files(import_name(distribution)).joinpath("py.typed").is_file()


def test_a_package_carries_its_licence_and_readme(distribution: Distribution) -> None:
    assert distribution.metadata["License-Expression"] == "Apache-2.0"
    assert "Apache License" in (distribution.read_text("licenses/LICENSE") or "")
    assert f"# {distribution.name}" in (distribution.read_text("METADATA") or "")


def test_every_exported_name_exists(distribution: Distribution) -> None:
    module = importlib.import_module(import_name(distribution))
    exported = getattr(module, "__all__", [])
    assert [name for name in exported if not hasattr(module, name)] == []
    assert len(exported) == len(set(exported))


def test_siblings_are_required_by_bounds(distribution: Distribution) -> None:
    siblings = [r for r in map(Requirement, distribution.requires or []) if r.name in EXTRAS and not r.marker]
    assert [str(r) for r in siblings if {s.operator for s in r.specifier} != {">=", "<"}] == []


def test_importing_a_package_brings_in_no_extra(distribution: Distribution) -> None:
    probe = f"import sys, {import_name(distribution)}; print(*sys.modules, sep='\\n')"
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=50, check=True)
    assert set(result.stdout.split()).isdisjoint(EXTRAS[distribution.name])


if ROWS := [row for row in NEED_AN_EXTRA if row[0] in INSTALLED]:  # none beside esockd-speedups alone

    @pytest.mark.parametrize(("distribution", "module", "extra"), ROWS, indirect=["distribution"])
    def test_a_module_that_needs_an_extra_says_which_one(distribution: Distribution, module: str, extra: str) -> None:
        probe = f"""
import sys
sys.modules[{extra!r}] = None  # as if it were not installed
try:
    import {module}
except ImportError as error:
    print(error)
"""
        result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=50, check=True)
        assert result.stdout.strip().endswith(f'pip install "{distribution.name}[{extra}]"')
