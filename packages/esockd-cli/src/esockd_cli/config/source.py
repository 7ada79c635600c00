"""A configuration file as TOML: its tables, and where each key stands."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from esockd_cli.config.lines import find_lines, line_of
from esockd_cli.config.problems import BadConfig, Problem
from esockd_core import read_regular_file

if TYPE_CHECKING:
    from collections.abc import Mapping

PLACE: Final = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
MAX_BYTES: Final = 16 << 20  # a file that is larger is another file


@dataclass(frozen=True, slots=True)
class Source:
    """A file that was parsed.

    Attributes:
        file: The file as it was named.
        folder: Where it is; relative paths in it start from there.
        data: What the parser made of it.
        lines: The line of each key.
    """

    file: str
    folder: Path
    data: dict[str, Any]
    lines: Mapping[tuple[str | int, ...], int]

    def problem(
        self, path: tuple[str | int, ...], message: str, hint: str | None = None, code: str = "bad_config"
    ) -> Problem:
        """Something that is wrong with a key."""
        key = ".".join(map(str, path))
        line = line_of(self.lines, path)
        return Problem(file=self.file, line=line, key=key, code=code, message=message, hint=hint)

    def place_of(self, path: tuple[str, ...]) -> str | None:
        """File and line of a key; None where it is not in the file."""
        line = self.lines.get(path)
        return None if line is None else f"{self.file}:{line}"

    def value_of(self, path: tuple[str, ...]) -> object:
        """What the file gives for a key."""
        value: Any = self.data
        for part in path:
            value = value[part]
        return value


def parse(file: str) -> Source:
    """Read a file as TOML.

    Raises:
        BadConfig: It cannot be read, or is not TOML.
    """
    try:
        content = read_regular_file(file, MAX_BYTES)
    except OSError as error:
        reason = error.strerror or str(error)
        message = f"{reason[:1].lower()}{reason[1:]}."
        raise _unreadable(file, message, hint=_mend(error, file)) from error
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _unreadable(file, "it is not UTF-8, as TOML has to be.", line=line) from error
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _unreadable(file, *_syntax_error(str(error), text)) from error
    except RecursionError as error:
        raise _unreadable(file, "it is nested too deeply.") from error
    try:
        lines = find_lines(text)
    except (RecursionError, ValueError):  # of two readers of one text this is the one that may be left out
        lines = {}
    return Source(file, Path(file).absolute().parent, data, lines)


def _unreadable(file: str, message: str, line: int | None = None, hint: str | None = None) -> BadConfig:
    code = "cannot_read" if line is None else "bad_toml"
    return BadConfig([Problem(file=file, line=line, key="", code=code, message=message, hint=hint)])


def _mend(error: OSError, file: str) -> str | None:
    if isinstance(error, IsADirectoryError):
        return "Name the file in it."
    return f"Write one: esockd config example > {file}" if isinstance(error, FileNotFoundError) else None


def _syntax_error(text: str, content: str) -> tuple[str, int]:
    found = PLACE.search(text)
    line = int(found[1]) if found and found[1] else content.count("\n") + 1
    return f"{text[: found.start()] if found else text}: this is not TOML.".replace("..:", ":"), line
