"""What the kernel tells of the machine, as files below a folder, which tests replace."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

CGROUPS: Final = Path("sys/fs/cgroup")


class CannotSee(Exception):  # noqa: N818 (an answer)
    """Something of the machine cannot be read; the text says why."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine, by its files.

    Attributes:
        root: The folder that has proc and sys.
    """

    root: Path = Path("/")

    def read(self, path: str | Path) -> str:
        """The text of a file.

        Raises:
            CannotSee: It cannot be read.
        """
        try:
            return (self.root / path).read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise CannotSee(f"/{path}: {(error.strerror or str(error)).lower()}") from error

    def numbers(self, path: str | Path) -> list[int]:
        """The numbers that a file holds.

        Raises:
            CannotSee: It cannot be read, or holds something else.
        """
        text = self.read(path)
        try:
            return [int(word) for word in text.split()]
        except ValueError as error:
            raise CannotSee(f"/{path}: it does not hold numbers") from error

    def number(self, path: str | Path) -> int:
        """The one number that a file holds.

        Raises:
            CannotSee: It cannot be read, or holds something else.
        """
        found = self.numbers(path)
        if len(found) != 1:
            raise CannotSee(f"/{path}: it does not hold one number")
        return found[0]

    def counters(self, path: str, table: str) -> dict[str, int]:
        """The counters of a table such as "TcpExt", a line of names and a line of numbers (proc_net(5)).

        Raises:
            CannotSee: There is no such table.
        """
        rows = [line.split()[1:] for line in self.read(path).splitlines() if line.startswith(f"{table}:")]
        try:
            names, values = rows
            return dict(zip(names, map(int, values), strict=True))
        except ValueError as error:
            raise CannotSee(f"/{path}: there is no table {table}") from error

    def memory_limit(self, process: str = "self") -> tuple[int, str]:
        """The memory that a process may use, and what sets that limit: its cgroup (v1 or v2), or the machine.

        Args:
            process: Its id.

        Raises:
            CannotSee: Neither can be read.
        """
        known = [(self._total_memory(), "the memory of this machine")]
        for line in self._lines(f"proc/{process}/cgroup"):
            _, controllers, path = line.split(":", 2)
            if "memory" in controllers.split(","):
                known += self._limits(CGROUPS / "memory", path, "memory.limit_in_bytes")
            elif not controllers:
                known += self._limits(CGROUPS, path, "memory.max") + self._limits(
                    CGROUPS / "unified", path, "memory.max"
                )
        return min(known)

    def _total_memory(self) -> int:
        for line in self.read("proc/meminfo").splitlines():
            if line.startswith("MemTotal:"):
                return int(line.split()[1]) * 1024
        raise CannotSee("/proc/meminfo: it has no MemTotal")

    def _limits(self, base: Path, path: str, name: str) -> list[tuple[int, str]]:
        """The limits of a cgroup and of those above it; in a container, the path may be one that only the host has."""
        parts = [part for part in path.split("/") if part not in ("", "..")]
        folders = [base.joinpath(*parts[:count]) for count in range(len(parts), -1, -1)]
        found = [(text, folder / name) for folder in folders for text in self._lines(folder / name)]
        return [(int(text), f"the limit of its cgroup, /{file}") for text, file in found if text.isdecimal()]

    def _lines(self, path: str | Path) -> list[str]:
        try:
            return self.read(path).splitlines()
        except CannotSee:
            return []
