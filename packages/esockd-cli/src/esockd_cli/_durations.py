"""Durations and rates of commands, read as those of options are."""

from __future__ import annotations

from esockd_cli._errors import UsageError, bad_value
from esockd_core import OPTIONS, InvalidOption
from esockd_ratelimit import InvalidRate, Rate


def parse_timeout(text: str, flag: str = "--timeout") -> float | None:
    """Read `--timeout`: seconds, 0 for at once, None for as long as it takes.

    Raises:
        UsageError: It is not a duration.
    """
    try:
        seconds: float | None = OPTIONS["shutdown_timeout"].kind.parse("timeout", text)
    except InvalidOption as error:
        raise bad_value(error, f"{flag} {text}") from error
    return seconds


def parse_duration(text: str, flag: str, most: str) -> float:
    """Read how long something is to last, which has an end.

    Raises:
        UsageError: It is not a duration, or beyond its bounds.
    """
    seconds = parse_timeout(text, flag)
    if not seconds or seconds > (parse_timeout(most) or 0):
        raise UsageError(f"{flag} {text}: it takes a time above 0, up to {most}.", code="bad_option")
    return seconds


def parse_rate(text: str) -> float:
    """Read `--rate`, a number a second.

    Raises:
        UsageError: It is not a rate above 0.
    """
    try:
        per_s = float(Rate.parse(text).per_s)
    except InvalidRate as error:
        raise UsageError(f"--rate {text}: {error.reason}.", code="bad_option", hint=error.hint) from error
    if per_s <= 0:
        raise UsageError(f"--rate {text}: it takes a rate above 0.", code="bad_option")
    return per_s
