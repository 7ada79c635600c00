"""The README of each package stands alone on a package index, and its metadata leads back to the repository."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # the tools are scripts, in no package that is installed

from tools.index_readme import for_index, relative_links  # noqa: E402

PACKAGES = sorted(path.name for path in (ROOT / "packages").glob("esockd-*"))
URLS = {
    name: tomllib.loads((ROOT / "packages" / name / "pyproject.toml").read_text())["project"]["urls"]
    for name in PACKAGES
}
HOMEPAGE = "https://example.org/esockd"


def test_a_link_leads_to_the_same_file_in_the_repository() -> None:
    text = "[a](../../docs/a.md#part), [b](../esockd-cidr/README.md), [c](#part), [d](https://d.example)"
    assert for_index(text, "packages/esockd-core", HOMEPAGE, "v1") == (
        f"[a]({HOMEPAGE}/blob/v1/docs/a.md#part), [b]({HOMEPAGE}/blob/v1/packages/esockd-cidr/README.md), "
        "[c](#part), [d](https://d.example)"
    )


@pytest.mark.parametrize("name", PACKAGES)
def test_every_file_that_a_readme_links_to_is_there(name: str) -> None:
    folder = ROOT / "packages" / name
    links = relative_links((folder / "README.md").read_text())
    assert [link for link in links if not (folder / link).is_file()] == []


@pytest.mark.parametrize("name", PACKAGES)
def test_a_readme_that_is_built_has_no_relative_link(name: str) -> None:
    text = (ROOT / "packages" / name / "README.md").read_text()
    assert relative_links(for_index(text, f"packages/{name}", HOMEPAGE, "v1")) == []


@pytest.mark.parametrize("name", PACKAGES)
def test_the_urls_of_a_package_lead_to_what_the_repository_has(name: str) -> None:
    homepage = URLS[name]["Homepage"]
    paths = [url.removeprefix(f"{homepage}/").partition("/main/")[2] for url in URLS[name].values() if "/main/" in url]
    assert f"packages/{name}/CHANGELOG.md" in paths
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_all_packages_name_the_same_repository() -> None:
    assert len({urls["Homepage"] for urls in URLS.values()}) == 1
