"""Logs of the packages and of the user's handlers, on stderr: for people, or as JSON lines."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from esockd_core import LOG_FIELDS

if TYPE_CHECKING:
    from esockd_cli._output import Output


def set_up_logs(output: Output, log_format: Literal["auto", "json"]) -> None:
    """Send every log record to stderr: warnings and worse, with `verbose` everything, with `quiet` errors only."""
    as_json = log_format == "json" or output.as_json
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter(output))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.ERROR if output.quiet else logging.INFO if output.verbose else logging.WARNING)
    if output.verbose:
        for name in ("esockd_core", "esockd_cli"):
            logging.getLogger(name).setLevel(logging.DEBUG)


class TextFormatter(logging.Formatter):
    """`warning: the message`; an exception is one more word about its place, and a traceback with `verbose`."""

    def __init__(self, output: Output) -> None:
        super().__init__()
        self._output = output

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line, or more with a traceback."""
        text = f"{self._output.label(record.levelname.lower())} {record.getMessage()}"
        error = record.exc_info[1] if record.exc_info else None
        if error is None:
            return text
        if self._output.verbose:
            return f"{text}\n{''.join(traceback.format_exception(error)).rstrip()}"
        return f"{text}{_place_of(error)}"


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a JSON object: time (UTC), level, logger, message, and as far as known what it is about."""
        fields: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields |= {name: value for name in LOG_FIELDS if (value := getattr(record, name, None)) is not None}
        if record.exc_info and (error := record.exc_info[1]) is not None:
            fields["exception"] = "".join(traceback.format_exception(error))
        return json.dumps(fields, ensure_ascii=False)


def _place_of(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f" ({frames[-1].filename} line {frames[-1].lineno}; -v shows the traceback)" if frames else ""
