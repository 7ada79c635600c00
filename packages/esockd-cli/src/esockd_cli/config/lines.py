"""On which line of a TOML text each key stands, which parsers do not tell."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

Path: TypeAlias = tuple[str | int, ...]

BLANKS: Final = re.compile(r"[ \t]*")
GAP: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
# As https://toml.io/en/v1.0.0 has them; the closing quotes of a multi-line string may follow one or two of its own.
STRING: Final = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*"{3,5}'
    r"|'''(?:[^']|'(?!''))*'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
PLAIN: Final = re.compile(r"[^,\]}#\n]+")


def find_lines(text: str) -> dict[Path, int]:
    """The line of each key and of each item of a list, counted from 1; of tables also that of their first mention.

    Args:
        text: A text that `tomllib` reads.
    """
    return _Scanner(text.replace("\r\n", "\n")).scan()


def line_of(lines: Mapping[Path, int], path: Path) -> int | None:
    """The line of a key, or of the nearest table that has one."""
    for end in range(len(path), 0, -1):
        if path[:end] in lines:
            return lines[path[:end]]
    return None


class _Scanner:
    """Walks over a valid text once."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._lines: dict[Path, int] = {}
        self._lengths: dict[Path, int] = {}  # of lists of tables
        self._counted = (0, 1)  # up to which place newlines were counted, and the line of that

    def scan(self) -> dict[Path, int]:
        table: Path = ()
        self._skip(GAP)
        while self._at < len(self._text):
            if self._text.startswith("[", self._at):
                table = self._header()
            else:
                self._pair(table)
            self._skip(GAP)
        return self._lines

    def _header(self) -> Path:
        is_list = self._text.startswith("[[", self._at)
        self._at += 2 if is_list else 1
        keys = self._keys()
        self._at += 2 if is_list else 1
        table: Path = ()
        for place, (key, line) in enumerate(keys):
            table = self._note((*table, key), line)
            if is_list and place == len(keys) - 1:
                self._lengths[table] = self._lengths.get(table, 0) + 1
            if table in self._lengths:
                table = self._note((*table, self._lengths[table] - 1), line)
        return table

    def _pair(self, table: Path) -> None:
        for key, line in self._keys():
            table = self._note((*table, key), line)
        self._at += 1  # the equals sign
        self._skip(BLANKS)
        self._value(table)

    def _keys(self) -> list[tuple[str, int]]:
        """The parts of a dotted key, each with its line."""
        keys: list[tuple[str, int]] = []
        while True:
            self._skip(BLANKS)
            line = self._line()
            quoted = STRING.match(self._text, self._at)
            found = quoted or BARE_KEY.match(self._text, self._at)
            if found is None:
                raise ValueError(f"there is no key on line {line}")
            self._at = found.end()
            keys.append((tomllib.loads(f"key = {found[0]}")["key"] if quoted else found[0], line))
            self._skip(BLANKS)
            if not self._text.startswith(".", self._at):
                return keys
            self._at += 1

    def _value(self, path: Path) -> None:
        if self._text.startswith(("[", "{"), self._at):
            self._items(path, "]" if self._text[self._at] == "[" else "}")
        else:
            self._skip(STRING if self._text.startswith(('"', "'"), self._at) else PLAIN)

    def _items(self, path: Path, end: str) -> None:
        self._at += 1
        count = 0
        while True:
            self._skip(GAP)
            if self._text.startswith(end, self._at):
                self._at += 1
                return
            if end == "]":
                self._value(self._note((*path, count), self._line()))
            else:
                self._pair(path)
            count += 1
            self._skip(GAP)
            if self._text.startswith(",", self._at):
                self._at += 1

    def _note(self, path: Path, line: int) -> Path:
        self._lines.setdefault(path, line)
        return path

    def _skip(self, pattern: re.Pattern[str]) -> None:
        found = pattern.match(self._text, self._at)
        if found is None:
            raise ValueError(f"line {self._line()} cannot be read")
        self._at = found.end()

    def _line(self) -> int:
        place, line = self._counted
        self._counted = (self._at, line + self._text.count("\n", place, self._at))
        return self._counted[1]
