"""Release one package: check that it is ready, build it, test what was built, and tag it.

Usage: make release PACKAGE=core

Nothing leaves this machine. At the end it says what publishes the release. CONTRIBUTING.md has the whole way to one.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from packaging.requirements import Requirement

from tools import check_wheels

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "build" / "release"
HOST = re.compile(r"^(?:\w+://)?(?:[^@/]+@)?([^:/]+)[:/]+")  # in https://host/, ssh://git@host/ and git@host:


class Package:
    """One package of the repository, as far as a release looks at it.

    Attributes:
        name: The name of its distribution.
        folder: Where it is.
        version: The version in its pyproject.toml.
        tag: The name of the tag of this version.
        requires: What it requires of other packages in the repository, by their names.
        homepage: The address of the repository.
    """

    def __init__(self, root: Path, short_name: str) -> None:
        self.name = f"esockd-{short_name}"
        self.folder = root / "packages" / self.name
        project = tomllib.loads((self.folder / "pyproject.toml").read_text())["project"]
        self.version: str = project["version"]
        self.tag = f"{self.name}-{self.version}"
        requirements = map(Requirement, project["dependencies"])
        self.requires = {r.name: r for r in requirements if r.name.startswith("esockd-")}
        self.homepage: str = project["urls"]["Homepage"]

    def news(self) -> tuple[str, str]:
        """What stands behind the version in the heading of its part of the changelog, and that part."""
        changelog = (self.folder / "CHANGELOG.md").read_text()
        part = re.search(
            rf"^## {re.escape(self.version)} \((.*?)\)\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL
        )
        return (part[1], part[2].strip()) if part else ("", "")


@cache
def names_of_a_repository() -> frozenset[str]:
    """The variables by which git tells its hooks which repository they are about, such as GIT_DIR."""
    told = subprocess.run(["git", "rev-parse", "--local-env-vars"], stdout=subprocess.PIPE, text=True, check=True)
    return frozenset(told.stdout.split())


def git(root: Path, *arguments: str) -> str:
    """What a git command prints about the repository at `root`, whatever repository a hook runs for."""
    environment = {name: value for name, value in os.environ.items() if name not in names_of_a_repository()}
    return subprocess.run(
        ["git", *arguments], cwd=root, env=environment, stdout=subprocess.PIPE, text=True, check=True
    ).stdout.strip()


def problems(root: Path, short_name: str) -> list[str]:
    """Everything that stands in the way of a release, each with what to do."""
    packages = {name: Package(root, name) for name in check_wheels.NAMES if (root / f"packages/esockd-{name}").is_dir()}
    package = packages.pop(short_name)
    found = []
    if git(root, "status", "--porcelain", "--untracked-files=normal"):
        found.append("the working tree has changes: commit them, so that what is built is what is tagged")
    if git(root, "tag", "--list", package.tag):
        found.append(f"{package.tag} is tagged already: raise the version in its pyproject.toml")
    date, news = package.news()
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", date) or not news:
        today = datetime.now(UTC).date()
        found.append(f"its CHANGELOG.md needs a part with the heading: ## {package.version} ({today})")
    origin = git(root, "config", "--default", "", "--get", "remote.origin.url").removesuffix(".git")
    origin = HOST.sub(r"https://\1/", origin)
    if origin and origin != package.homepage:
        found.append(f"its README would link to {package.homepage}, but origin is {origin}: correct [project.urls]")
    for other in packages.values():
        bounds = other.requires.get(package.name)
        if bounds and package.version not in bounds.specifier:
            found.append(f"{other.name} requires {bounds}, which leaves out {package.version}: widen it")
        if other.name in package.requires:
            if not git(root, "tag", "--list", other.tag):
                found.append(
                    f"it requires {other.name}, whose version {other.version} is not released: release that first"
                )
            elif git(root, "diff", "--name-only", other.tag, "HEAD", "--", str(other.folder / "src")):
                found.append(f"it requires {other.name}, which has changed since {other.version}: release that first")
    return found


def main() -> None:
    """Entry point."""
    if len(sys.argv) != 2 or sys.argv[1] not in check_wheels.NAMES:
        sys.exit(f"error: which package? PACKAGE is one of {', '.join(check_wheels.NAMES)}")
    short_name = sys.argv[1]
    package = Package(ROOT, short_name)
    if found := problems(ROOT, short_name):
        sys.exit(
            "\n".join([f"error: {package.name} {package.version} cannot be released:", *(f"- {p}" for p in found)])
        )
    check_wheels.check(short_name, check_wheels.build_all()[short_name])
    OUTPUT.mkdir(parents=True, exist_ok=True)
    built = [shutil.copy(path, OUTPUT) for path in check_wheels.WHEELHOUSE.glob(f"{package.tag.replace('-', '_', 1)}*")]
    message = f"{package.name} {package.version}\n\n{package.news()[1]}"
    git(ROOT, "tag", "--annotate", "--cleanup=verbatim", "--message", message, package.tag)
    print(f"{package.tag} is tagged. To publish it:")
    print(f"  git push origin {package.tag}")
    print(f"  twine upload {' '.join(str(Path(path).relative_to(ROOT)) for path in built)}")


if __name__ == "__main__":
    main()
