"""The pages that lead through the code of core name files that exist, and every room."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "packages/esockd-core/src/esockd_core"
PATH_PAGE = (ROOT / "docs/path-of-a-connection.md").read_text()
ROOMS_PART = (ROOT / "CONTRIBUTING.md").read_text().partition("### The rooms of core")[2].partition("\n## ")[0]
FILES = sorted(set(re.findall(r"`([\w/*]+\.py)`", PATH_PAGE)))
ROOMS = re.findall(r"^\| `(\w+)` \|", ROOMS_PART, re.MULTILINE)


@pytest.mark.parametrize("name", FILES)
def test_a_file_on_the_path_of_a_connection_exists(name: str) -> None:
    for loop in ("asyncio", "trio"):
        assert (CORE / name.replace("*", loop)).is_file()


def test_the_path_of_a_connection_goes_through_every_room_that_a_connection_uses() -> None:
    rooms = {name.partition("/")[0] for name in FILES}
    assert rooms >= {"_sockets", "_listening", "_loops", "_admission", "_connection", "_forwarding", "_stats", "_tls"}


def test_every_room_of_core_is_in_the_map() -> None:
    rooms = {path.stem for path in CORE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert sorted(ROOMS) == sorted(rooms - {"__init__"})


def test_the_map_has_the_rooms_in_the_order_of_their_layers() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    [layers] = [contract["layers"] for contract in contracts if contract["name"].startswith("Rooms of core")]
    in_order = [room.strip().removeprefix("esockd_core.") for layer in layers for room in layer.split("|")]
    assert in_order == ROOMS
