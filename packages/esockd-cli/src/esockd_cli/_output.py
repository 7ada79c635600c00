"""Where what a command says goes: data to stdout, everything else to stderr; for people, or as JSON for scripts."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import traceback
from collections import deque
from dataclasses import dataclass
from typing import IO, Final, Literal, TypeAlias

from esockd_cli._errors import CommandError, ExitCode
from esockd_cli._log_lines import LogForm, log_line, write_fields

LogTarget: TypeAlias = Literal["stderr", "syslog", "journald"]
LogLevel: TypeAlias = Literal["error", "warning", "info", "debug"]

notes: logging.Logger = logging.getLogger("esockd_cli.notes")
"""What people are told, where that goes to the log of the system."""

SCHEMA: Final = 1  # grows when a field changes its meaning or goes away; new fields may come at any time
COLORS: Final = {"error": "\x1b[1;31m", "warning": "\x1b[1;33m", "note": "\x1b[2m"}
RESET: Final = "\x1b[0m"
TOLD: Final[deque[str]] = deque(maxlen=8)
"""The last errors of this process, for a program that it was to replace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """How this run of the command speaks.

    Attributes:
        as_json: Data are JSON lines, and so are errors.
        log_form: How whatever goes to stderr is written.
        log_to: Where logs and notes go.
        log_file: The file in the place of stderr; None for none.
        log_level: From which level on lines are logged; None for what `quiet` and `verbose` say.
        no_color: No colours, terminal or not.
        quiet: Data and errors only.
        verbose: Tracebacks and debug logs too.
    """

    as_json: bool = False
    log_form: LogForm = "auto"
    log_to: LogTarget = "stderr"
    log_file: str | None = None
    log_level: LogLevel | None = None
    no_color: bool = False
    quiet: bool = False
    verbose: bool = False

    def data(self, text: str | None, **fields: object) -> bool:
        """Write one item of data: the text for people (None for nothing), the fields for scripts.

        Returns:
            Whether somebody still reads.
        """
        if self.as_json:
            return _write(sys.stdout, json.dumps({"schema": SCHEMA, **fields}, ensure_ascii=False))
        return text is None or _write(sys.stdout, text)

    def note(self, text: str) -> None:
        """Tell people something that is not data; not with `quiet`, and not with JSON data, which tell it too."""
        if self.quiet or (self.as_json and self.log_form == "auto" and self.log_to == "stderr"):
            return
        if self.log_to != "stderr":
            notes.info("%s", text)
            return
        form = self.log_form
        _write(sys.stderr, text if form == "auto" else log_line(form, time.time(), "info", "esockd_cli", text))

    def confirm(self, question: str, *, yes: bool) -> None:
        """Ask at a terminal whether to go on; a script is taken to mean what it says.

        Raises:
            CommandError: The answer is not yes.
        """
        if yes or self.as_json or not (sys.stdin.isatty() and sys.stderr.isatty()):
            return
        sys.stderr.write(f"{question} [y/N] ")
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise CommandError("nothing was done.", code="not_confirmed", status=ExitCode.FAILED, hint=None)

    def error(self, error: CommandError) -> None:
        """Say why the command failed; with `verbose` also where."""
        TOLD.append(f"{error.message} {error.hint}" if error.hint else error.message)
        cause = error.__cause__ if self.verbose else None
        trace = None if cause is None else "".join(traceback.format_exception(cause)).rstrip()
        if self.log_to != "stderr":
            notes.error("%s%s", error.message, f" {error.hint}" if error.hint else "")
            return
        fields: dict[str, object] = {"code": error.code, "message": error.message, "hint": error.hint}
        if trace is not None:
            fields["traceback"] = trace
        if self.log_form == "logfmt":
            _write(sys.stderr, write_fields("logfmt", {"level": "error", **fields}))
            return
        if self.as_json or self.log_form == "json":
            _write(sys.stderr, json.dumps({"schema": SCHEMA, "error": fields}, ensure_ascii=False))
            return
        if trace is not None:
            _write(sys.stderr, trace)
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


def _write(stream: IO[str] | None, text: str) -> bool:
    """Write whole lines at once; a reader that is gone must not end a server. Say whether there is one."""
    if stream is None:
        return False
    try:
        stream.write(f"{text}\n")
        stream.flush()
    except OSError:  # a pipe that nobody reads, or a terminal that was closed
        # What is buffered would fail again when the interpreter flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return False
    return True
