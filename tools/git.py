"""What git says about a repository, whatever repository a hook runs for."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path


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


def files_of(root: Path, folder: str) -> list[Path]:
    """The files in a folder of a repository, committed or not, relative to `root`, without those that git ignores.

    Where `root` is a copy without its history, or git is missing, all but what Python compiles.
    """
    try:
        listed = git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", folder)
    except (OSError, subprocess.CalledProcessError):
        found = [path.relative_to(root) for path in (root / folder).rglob("*") if path.is_file()]
        return sorted(path for path in found if "__pycache__" not in path.parts)
    return [Path(name) for name in sorted(set(listed.split("\0"))) if name and (root / name).is_file()]
