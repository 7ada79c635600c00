"""Where what a command says goes: data to stdout, everything else to stderr; for people, or as JSON for scripts."""

from __future__ import annotations

import json
import os
import sys
import traceback
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Final

if TYPE_CHECKING:
    from esockd_cli._errors import CommandError

SCHEMA: Final = 1  # grows when a field changes its meaning or goes away; new fields may come at any time
COLORS: Final = {"error": "\x1b[1;31m", "warning": "\x1b[1;33m", "note": "\x1b[2m"}
RESET: Final = "\x1b[0m"


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """How this run of the command speaks.

    Attributes:
        as_json: Data are JSON lines, and so are errors.
        no_color: No colours, terminal or not.
        quiet: Data and errors only.
        verbose: Tracebacks and debug logs too.
    """

    as_json: bool = False
    no_color: bool = False
    quiet: bool = False
    verbose: bool = False

    def data(self, text: str | None, **fields: object) -> None:
        """Write one item of data: the text for people (None for nothing), the fields for scripts."""
        if self.as_json:
            _write(sys.stdout, json.dumps({"schema": SCHEMA, **fields}, ensure_ascii=False))
        elif text is not None:
            _write(sys.stdout, text)

    def note(self, text: str) -> None:
        """Tell people something that is no data; not with `quiet`, not with JSON."""
        if not (self.quiet or self.as_json):
            _write(sys.stderr, text)

    def error(self, error: CommandError) -> None:
        """Say why the command failed; with `verbose` also where."""
        if self.verbose and error.__cause__ is not None:
            _write(sys.stderr, "".join(traceback.format_exception(error.__cause__)).rstrip())
        if self.as_json:
            fields = {"code": error.code, "message": error.message, "hint": error.hint}
            _write(sys.stderr, json.dumps({"schema": SCHEMA, "error": fields}, ensure_ascii=False))
        else:
            _write(sys.stderr, f"{self.label('error')} {error.message}{f' {error.hint}' if error.hint else ''}")

    def label(self, level: str) -> str:
        """`error:` or `warning:`, in colour on a terminal."""
        if self.has_colors and level in COLORS:
            return f"{COLORS[level]}{level}:{RESET}"
        return f"{level}:"

    @property
    def has_colors(self) -> bool:
        """Whether stderr is a terminal that wants colours (no-color.org)."""
        if self.no_color or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
            return False
        return sys.stderr is not None and sys.stderr.isatty()


def _write(stream: IO[str] | None, text: str) -> None:
    """Write whole lines at once; a reader that is gone must not end a server."""
    if stream is None:
        return
    try:
        stream.write(f"{text}\n")
        stream.flush()
    except BrokenPipeError:
        # What is buffered would fail again when the interpreter flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
