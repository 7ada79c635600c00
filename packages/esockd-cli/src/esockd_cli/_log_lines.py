"""A line of logs for machines: as JSON or as logfmt."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Literal, TypeAlias

LogForm: TypeAlias = Literal["auto", "json", "logfmt"]
"""How lines of logs are written; auto is for people."""


def log_line(form: LogForm, created: float, level: str, logger: str, message: str, **fields: object) -> str:
    """A line of logs: time (UTC), level, logger and message, and what it is about.

    Args:
        form: How it is written; auto is JSON here.
        created: Seconds since the epoch.
        level: Such as "warning".
        logger: Who says it.
        message: What.
        fields: What it is about.
    """
    when = datetime.fromtimestamp(created, UTC).isoformat(timespec="milliseconds")
    return write_fields(form, {"time": when, "level": level, "logger": logger, "message": message, **fields})


def write_fields(form: LogForm, fields: dict[str, object]) -> str:
    """Fields as one line, either way; auto is JSON here."""
    if form == "logfmt":
        return " ".join(f"{name}={logfmt_value(value)}" for name, value in fields.items() if value is not None)
    return json.dumps(fields, ensure_ascii=False)


def logfmt_value(value: object) -> str:
    """A value as logfmt has it: bare where that is clear, otherwise quoted as in JSON; a peer is HOST:PORT."""
    match value:
        case bool():
            text = str(value).lower()
        case (str() as host, int() as port, *_):  # a peer
            text = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        case _:
            text = str(value)
    is_bare = bool(text) and text.isprintable() and not {*text} & {*' "=\\'}
    return text if is_bare else json.dumps(text, ensure_ascii=False)
