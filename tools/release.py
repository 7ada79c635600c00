"""Release one package: check that it is ready, build it, test what was built, and tag it.

Usage: make release PACKAGE=core

Nothing leaves this machine. At the end it says what publishes the release. CONTRIBUTING.md has the whole way to one.
"""

from __future__ import annotations

import re
import shutil
import sys
import tomllib
from datetime import UTC, date, datetime
from itertools import chain
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version

from tools import check_wheels
from tools.git import git

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "build" / "release"
RELEASED_FROM = "main"
HOST = re.compile(r"^(?:\w+://)?(?:[^@/]+@)?([^:/]+)[:/]+")  # in https://host/, ssh://git@host/ and git@host:


class Package:
    """One package of the repository, as far as a release looks at it.

    Attributes:
        name: The name of its distribution.
        folder: Where it is.
        version: The version in its pyproject.toml.
        tag: The name of the tag of this version.
        requires: What it and its extras require of other packages in the repository, by their names.
        homepage: The address of the repository.
    """

    def __init__(self, root: Path, short_name: str) -> None:
        self.name = f"esockd-{short_name}"
        self.folder = root / "packages" / self.name
        project = tomllib.loads((self.folder / "pyproject.toml").read_text())["project"]
        self.version: str = project["version"]
        self.tag = f"{self.name}-{self.version}"
        extras = chain(*project.get("optional-dependencies", {}).values())
        requirements = map(Requirement, [*extras, *project["dependencies"]])  # the bounds are in the latter
        self.requires = {r.name: r for r in requirements if r.name.startswith("esockd-")}
        self.homepage: str = project["urls"]["Homepage"]

    def news(self) -> tuple[str, str]:
        """What stands behind the version in the heading of its part of the changelog, and that part; or nothing."""
        file = self.folder / "CHANGELOG.md"
        changelog = file.read_text() if file.is_file() else ""
        part = re.search(
            rf"^## {re.escape(self.version)} \((.*?)\)\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL
        )
        return (part[1], part[2].strip()) if part else ("", "")


def problems(root: Path, short_name: str) -> list[str]:
    """Everything that stands in the way of a release, each with what to do."""
    packages = {name: Package(root, name) for name in check_wheels.NAMES if (root / f"packages/esockd-{name}").is_dir()}
    package = packages.pop(short_name)
    if (problem := problem_of_version(package.version)) is not None:
        return [problem]
    found = []
    if (branch := git(root, "branch", "--show-current")) != RELEASED_FROM:
        here = f"this is the branch {branch}" if branch else "this is no branch"
        found.append(f"{here}: releases are made on {RELEASED_FROM}")
    if git(root, "status", "--porcelain", "--untracked-files=normal"):
        found.append("the working tree has changes: commit them, so that what is built is what is tagged")
    if git(root, "tag", "--list", package.tag):
        found.append(f"{package.tag} is tagged already: raise the version in its pyproject.toml")
    when, news = package.news()
    if not is_date(when) or not news:
        today = datetime.now(UTC).date()
        found.append(f"its CHANGELOG.md needs a part with the heading: ## {package.version} ({today})")
    origin = git(root, "config", "--default", "", "--get", "remote.origin.url").removesuffix(".git")
    origin = HOST.sub(r"https://\1/", origin)
    if origin and origin != package.homepage:
        found.append(f"its README would link to {package.homepage}, but origin is {origin}: correct [project.urls]")
    for other in packages.values():
        bounds = other.requires.get(package.name)
        if bounds and not bounds.specifier.contains(package.version, prereleases=True):
            found.append(f"{other.name} requires {bounds}, which leaves out {package.version}: widen it")
        if other.name in package.requires:
            if not git(root, "tag", "--list", other.tag):
                found.append(
                    f"it requires {other.name}, whose version {other.version} is not released: release that first"
                )
            elif git(root, "diff", "--name-only", other.tag, "HEAD", "--", str(other.folder / "src")):
                found.append(f"it requires {other.name}, which has changed since {other.version}: release that first")
    return found


def problem_of_version(version: str) -> str | None:
    """What is wrong with how a version is written: what is built has its normal form (PEP 440), and so has the tag."""
    try:
        normal = str(Version(version))
    except InvalidVersion:
        return f"{version} is no version: write one such as 0.2.0 or 0.2.0rc1 in its pyproject.toml"
    if normal != version:
        return (
            f"{version} is not the normal form of that version: write {normal} in its pyproject.toml and CHANGELOG.md"
        )
    return None


def is_date(text: str) -> bool:
    """Whether a text is a date of the calendar, such as 2026-11-28."""
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def is_published(path: Path) -> bool:
    """Whether an index takes a file: it takes no wheel that was compiled on just any machine, only its sdist."""
    return path.suffix != ".whl" or path.name.endswith("-none-any.whl")


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
    check_wheels.build_all()
    check_wheels.check(short_name)
    OUTPUT.mkdir(parents=True, exist_ok=True)
    made = check_wheels.WHEELHOUSE.glob(f"{package.tag.replace('-', '_', 1)}*")
    built = [shutil.copy(path, OUTPUT) for path in made if is_published(path)]
    message = f"{package.name} {package.version}\n\n{package.news()[1]}"
    git(ROOT, "tag", "--annotate", "--cleanup=verbatim", "--message", message, package.tag)
    print(f"{package.tag} is tagged. To publish it:")
    print(f"  git push origin {package.tag}")
    print(f"  twine upload {' '.join(str(Path(path).relative_to(ROOT)) for path in built)}")


if __name__ == "__main__":
    main()
