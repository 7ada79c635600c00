"""Logs of the packages and of the user's handlers, on stderr: for people, or as JSON lines."""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from typing import TYPE_CHECKING

from esockd_cli._log_file import LogFileHandler
from esockd_cli._log_lines import LogForm, log_line
from esockd_cli._output import notes
from esockd_cli._system_logs import JOURNAL, SYSLOG, JournalHandler, SyslogHandler
from esockd_core import LOG_FIELDS

if TYPE_CHECKING:
    from esockd_cli._output import Output
    from esockd_core.privileges import Account

logger = logging.getLogger("esockd_cli")


def set_up_logs(output: Output, account: Account | None = None) -> None:
    """Send every log record where it belongs: warnings and worse, with `verbose` everything, with `quiet` errors only.

    What Python itself would write to stderr is logged as well, and unless `quiet` what was changed over the control
    socket.

    Args:
        output: Where logs go, and in which form.
        account: The user that will serve; None for that of this process.

    Raises:
        CommandError: The log of the system is not there.
    """
    handler = _make_handler(output, account)
    form: LogForm = "json" if output.as_json and output.log_form == "auto" else output.log_form
    handler.setFormatter(TextFormatter(output) if form == "auto" else FieldsFormatter(form))
    root = logging.getLogger()
    root.addHandler(handler)
    logging.captureWarnings(True)
    sys.unraisablehook = log_unraisable
    threading.excepthook = log_failed_thread
    root.setLevel(logging.ERROR if output.quiet else logging.INFO if output.verbose else logging.WARNING)
    if not output.quiet:
        for name in ("esockd_core.audit", notes.name):
            logging.getLogger(name).setLevel(logging.INFO)
    own = logging.DEBUG if output.verbose else None
    if output.log_level is not None:
        own = logging.getLevelNamesMapping()[output.log_level.upper()]
        root.setLevel(max(own, logging.INFO))  # other libraries say too much below
    if own is not None:
        for name in ("esockd_core", "esockd_cli"):
            logging.getLogger(name).setLevel(own)


def _make_handler(output: Output, account: Account | None) -> logging.Handler:
    match output.log_to:
        case "syslog":
            return SyslogHandler(SYSLOG)
        case "journald":
            return JournalHandler(JOURNAL)
    return logging.StreamHandler(sys.stderr) if output.log_file is None else LogFileHandler(output.log_file, account)


def log_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    """Log what Python cannot raise, but not that a client asked for a server name that is not ASCII.

    Python's `ssl` has no other way to tell of that, and would write some lines to stderr for each such client. The
    handshake that fails because of it has its own line in the listener's log, which is bounded.
    """
    if isinstance(unraisable.exc_value, UnicodeDecodeError) and isinstance(unraisable.object, bytes):
        return
    what = unraisable.err_msg or "exception ignored in"
    logger.error("%s %r", what, unraisable.object, exc_info=unraisable.exc_value)


def log_failed_thread(failed: threading.ExceptHookArgs) -> None:
    """Log what ended a thread, unless it left by itself."""
    if issubclass(failed.exc_type, SystemExit):
        return
    name = "a thread" if failed.thread is None else f"thread {failed.thread.name}"
    logger.error("%s failed: %r", name, failed.exc_value, exc_info=failed.exc_value)


class TextFormatter(logging.Formatter):
    """`warning: the message`; an exception is one more word about its place, and a traceback with `verbose`."""

    def __init__(self, output: Output) -> None:
        super().__init__()
        self._output = output

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line, or more with a traceback."""
        # The log of the system has the level already.
        label = f"{self._output.label(record.levelname.lower())} " if self._output.log_to == "stderr" else ""
        text = f"{label}{record.getMessage()}"
        if stack := getattr(record, "stack", None):
            text += f"\n{stack}"
        error = record.exc_info[1] if record.exc_info else None
        if error is None:
            return text
        if self._output.verbose:
            return f"{text}\n{''.join(traceback.format_exception(error)).rstrip()}"
        return f"{text}{_place_of(error)}"


class FieldsFormatter(logging.Formatter):
    """One line a record, for machines.

    Args:
        form: How fields are written.
    """

    def __init__(self, form: LogForm) -> None:
        super().__init__()
        self._form: LogForm = form

    def format(self, record: logging.LogRecord) -> str:
        """The record as fields, with what it is about as far as that is known."""
        known = (*LOG_FIELDS, "stack")
        fields = {name: value for name in known if (value := getattr(record, name, None)) is not None}
        if record.exc_info and (error := record.exc_info[1]) is not None:
            fields["exception"] = "".join(traceback.format_exception(error))
        level = record.levelname.lower()
        return log_line(self._form, record.created, level, record.name, record.getMessage(), **fields)


def _place_of(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f" ({frames[-1].filename} line {frames[-1].lineno}; -v shows the traceback)" if frames else ""
