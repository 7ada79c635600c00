"""The options of a listener's sockets, from the settings of a command line."""

from __future__ import annotations

from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from esockd_cli._errors import UsageError
from esockd_cli._values import parse_mode, parse_name_or_number, parse_settings
from esockd_core import InvalidOption, TcpOptions, UnixOptions


def read_tcp_options(texts: list[str], *, backlog: int | None, tune_buffer: bool) -> TcpOptions:
    """Read `--tcp-option`s, and the two that have an option of their own.

    Raises:
        UsageError: A name is unknown, given twice, or its value is out of bounds.
    """
    settings: dict[str, Any] = dict(parse_settings("--tcp-option", texts))
    known = [field.name for field in fields(TcpOptions)]
    for name in settings:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f'Did you mean "{near[0]}"?' if near else f"Known: {', '.join(known)}."
            raise UsageError(f'--tcp-option: unknown key "{name}".', code="unknown_option", hint=hint)
    own: dict[str, Any] = {"backlog": backlog, "tune_buffer": tune_buffer or None}
    for name, value in own.items():
        if value is not None:
            if name in settings:
                raise UsageError(f"--tcp-option: {name} is given twice.")
            settings[name] = value
    try:
        return TcpOptions(**settings)
    except InvalidOption as error:
        raise UsageError(f"{error}.", code="bad_option") from error


def read_unix_options(mode: str | None, owner: str | None, group: str | None) -> UnixOptions:
    """Read `--unix-mode`, `--unix-owner` and `--unix-group`.

    Raises:
        UsageError: The mode is none, or the user or group does not exist.
    """
    try:
        return UnixOptions(
            mode=None if mode is None else parse_mode("--unix-mode", mode),
            owner=None if owner is None else parse_name_or_number(owner),
            group=None if group is None else parse_name_or_number(group),
        )
    except InvalidOption as error:
        raise UsageError(f"{error}.", code="bad_option") from error
