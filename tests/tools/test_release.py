"""A package is released only if what is tagged is complete, consistent and what its users will get."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the tools are scripts, in no package that is installed

from tools.git import files_of
from tools.release import Package, problems

if TYPE_CHECKING:
    from tests.conftest import RequireTool

HOMEPAGE = "https://git.example/somebody/esockd"


class Repository:
    """A repository with two packages: core, which requires cidr."""

    def __init__(self, root: Path, git: str) -> None:
        self.root = root
        self._git = git
        self.git("init", "--quiet", "--initial-branch=main")
        self.write("cidr", "0.1.0", heading="0.1.0 (2026-11-28)")
        self.write("core", "0.1.0", heading="0.1.0 (2026-11-28)", requires="esockd-cidr>=0.1,<0.2")
        self.commit()

    def git(self, *arguments: str) -> None:
        settings = [
            "user.name=somebody",
            "user.email=somebody@example.org",
            "commit.gpgSign=false",
            "tag.gpgSign=false",
        ]
        options = [word for setting in settings for word in ("-c", setting)]
        subprocess.run([self._git, *options, *arguments], cwd=self.root, check=True, capture_output=True)

    def write(self, name: str, version: str, heading: str, requires: str = "", extra: str = "") -> None:
        folder = self.root / "packages" / f"esockd-{name}"
        (folder / "src").mkdir(parents=True, exist_ok=True)
        (folder / "src" / "code.py").touch()
        (folder / "CHANGELOG.md").write_text(
            f"# Changelog\n\n## {heading}\n\n- News.\n\n## 0.0.1 (2026-01-01)\n\n- Old.\n"
        )
        (folder / "pyproject.toml").write_text(
            f'[project]\nname = "esockd-{name}"\nversion = "{version}"\n'
            f"dependencies = {[requires] if requires else []}\n"
            f"optional-dependencies.extra = {[extra] if extra else []}\n"
            f'[project.urls]\nHomepage = "{HOMEPAGE}"\n'
        )

    def commit(self) -> None:
        self.git("add", ".")
        self.git("commit", "--quiet", "--message", "Change something")

    def release(self, name: str) -> None:
        self.git("tag", "--annotate", "--message", "News", Package(self.root, name).tag)


@pytest.fixture
def repository(tmp_path: Path, require_tool: RequireTool, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A repository that neither the user's settings nor a hook of another repository reach."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    return Repository(tmp_path, require_tool("git"))


def test_a_package_that_is_ready_has_no_problems(repository: Repository) -> None:
    assert problems(repository.root, "cidr") == []
    repository.release("cidr")
    assert problems(repository.root, "core") == []


def test_a_git_hook_of_another_repository_does_not_change_what_is_looked_at(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(repository.root / "of-the-other-one"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(repository.root / "index-of-the-other-one"))
    assert problems(repository.root, "cidr") == []


def test_a_version_is_released_once(repository: Repository) -> None:
    repository.release("cidr")
    [problem] = problems(repository.root, "cidr")
    assert problem.startswith("esockd-cidr-0.1.0 is tagged already")


def test_everything_has_to_be_committed(repository: Repository) -> None:
    repository.git("config", "status.showUntrackedFiles", "no")
    (repository.root / "forgotten.py").touch()
    [problem] = problems(repository.root, "cidr")
    assert problem.startswith("the working tree has changes")


@pytest.mark.parametrize(
    "heading", ["0.1.0 (unreleased)", "0.1.0", "0.1.1 (2026-11-28)", "0.1.0 (2026-11-28)\n\n## 0.0.9 (x)"]
)
def test_the_changelog_has_a_dated_part_with_news(repository: Repository, heading: str) -> None:
    repository.write("cidr", "0.1.0", heading)
    repository.commit()
    [problem] = problems(repository.root, "cidr")
    assert "needs a part with the heading: ## 0.1.0 (" in problem


@pytest.mark.parametrize("date", ["2026-13-45", "2026-02-30", "20261128", "2026-W48-6", "x"])
def test_a_day_that_no_calendar_has_is_no_date(repository: Repository, date: str) -> None:
    repository.write("cidr", "0.1.0", heading=f"0.1.0 ({date})")
    repository.commit()
    [problem] = problems(repository.root, "cidr")
    assert "needs a part with the heading: ## 0.1.0 (" in problem


def test_a_package_without_a_changelog_needs_one(repository: Repository) -> None:
    (repository.root / "packages/esockd-cidr/CHANGELOG.md").unlink()
    repository.commit()
    [problem] = problems(repository.root, "cidr")
    assert "CHANGELOG.md needs a part with the heading: ## 0.1.0 (" in problem


@pytest.mark.parametrize(
    ("version", "told"),
    [
        ("0.1.1-rc1", "0.1.1-rc1 is not the normal form of that version: write 0.1.1rc1"),
        ("v0.1.1", "v0.1.1 is not the normal form of that version: write 0.1.1"),
        ("new", "new is no version: write one such as"),
    ],
)
def test_a_version_is_written_in_its_normal_form(repository: Repository, version: str, told: str) -> None:
    repository.write("cidr", version, heading=f"{version} (2026-11-28)")
    repository.commit()
    [problem] = problems(repository.root, "cidr")
    assert problem.startswith(told)


def test_a_release_candidate_within_the_bounds_is_released(repository: Repository) -> None:
    repository.write("cidr", "0.1.1rc1", heading="0.1.1rc1 (2026-11-28)")
    repository.commit()
    assert problems(repository.root, "cidr") == []


def test_releases_are_made_on_the_main_branch(repository: Repository) -> None:
    repository.git("switch", "--quiet", "--create", "other")
    assert problems(repository.root, "cidr") == ["this is the branch other: releases are made on main"]
    repository.git("switch", "--quiet", "--detach")
    assert problems(repository.root, "cidr") == ["this is no branch: releases are made on main"]


def test_what_git_ignores_is_not_built(repository: Repository) -> None:
    folder = "packages/esockd-cidr"
    (repository.root / ".gitignore").write_text("*.key\n")
    (repository.root / folder / "secret.key").touch()
    (repository.root / folder / "src" / "new.py").touch()
    (repository.root / folder / "CHANGELOG.md").unlink()
    names = [str(path) for path in files_of(repository.root, folder)]
    assert names == [f"{folder}/pyproject.toml", f"{folder}/src/code.py", f"{folder}/src/new.py"]


def test_a_copy_without_its_history_is_built_too(repository: Repository) -> None:
    folder = "packages/esockd-cidr"
    (repository.root / folder / "src" / "__pycache__").mkdir(parents=True, exist_ok=True)
    (repository.root / folder / "src" / "__pycache__" / "code.pyc").touch()
    (repository.root / ".gitignore").write_text("__pycache__/\n")
    known = files_of(repository.root, folder)
    shutil.rmtree(repository.root / ".git")
    assert files_of(repository.root, folder) == known


def test_the_tag_tells_the_news_of_its_version_only(repository: Repository) -> None:
    assert Package(repository.root, "cidr").news() == ("2026-11-28", "- News.")


@pytest.mark.parametrize(
    ("origin", "count"),
    [
        (f"{HOMEPAGE}.git", 0),
        ("git@git.example:somebody/esockd.git", 0),
        ("ssh://git@git.example/somebody/esockd", 0),
        ("https://git.example/somebody-else/esockd", 1),
    ],
)
def test_the_links_of_a_readme_lead_to_where_the_package_comes_from(
    repository: Repository, origin: str, count: int
) -> None:
    repository.git("remote", "add", "origin", origin)
    assert len(problems(repository.root, "cidr")) == count


def test_a_version_that_other_packages_leave_out_is_not_released(repository: Repository) -> None:
    repository.write("cidr", "0.2.0", heading="0.2.0 (2026-11-28)")
    repository.commit()
    [problem] = problems(repository.root, "cidr")
    assert problem.startswith("esockd-core requires esockd-cidr<0.2,>=0.1, which leaves out 0.2.0")


def test_what_a_package_requires_is_released_first(repository: Repository) -> None:
    [problem] = problems(repository.root, "core")
    assert problem.startswith("it requires esockd-cidr, whose version 0.1.0 is not released")
    repository.release("cidr")
    (repository.root / "packages/esockd-cidr/src/code.py").write_text("changed = True\n")
    repository.commit()
    [problem] = problems(repository.root, "core")
    assert problem.startswith("it requires esockd-cidr, which has changed since 0.1.0")


def test_what_an_extra_requires_counts_as_well(repository: Repository) -> None:
    repository.release("cidr")
    repository.write("speedups", "0.2.0", heading="0.2.0 (2026-11-28)")
    repository.write(
        "core", "0.1.0", "0.1.0 (2026-11-28)", requires="esockd-cidr>=0.1,<0.2", extra="esockd-speedups>=0.1,<0.2"
    )
    repository.commit()
    [problem] = problems(repository.root, "core")
    assert problem.startswith("it requires esockd-speedups, whose version 0.2.0 is not released")
    [problem] = problems(repository.root, "speedups")
    assert problem.startswith("esockd-core requires esockd-speedups<0.2,>=0.1, which leaves out 0.2.0")
