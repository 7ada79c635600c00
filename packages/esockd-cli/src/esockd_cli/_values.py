"""Reading the values of options: durations, counts, settings, modes, and who may connect."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from esockd_cidr import InvalidRule, Rule
from esockd_cli._errors import UsageError
from esockd_ratelimit import Rate, RateLimitError

if TYPE_CHECKING:
    from collections.abc import Iterable

NONE: Final = ("none", "infinity")  # both say that there is no bound
DURATION: Final = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[a-z]+)", re.ASCII | re.IGNORECASE)
UNITS_S: Final = {"us": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}
BOOLEANS: Final = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def parse_duration(option: str, text: str) -> float | None:
    """Read `2s`, `500ms`, `1.5m`, `0` or `none` as seconds.

    Args:
        option: The option's name, for the message.
        text: What was typed.

    Returns:
        Seconds, or None for no bound.

    Raises:
        UsageError: It is none of these.
    """
    if text.lower() in NONE:
        return None
    if text == "0":
        return 0.0
    found = DURATION.fullmatch(text.strip())
    if found and found["unit"].lower() in UNITS_S and math.isfinite(float(found["number"])):
        return float(found["number"]) * UNITS_S[found["unit"].lower()]
    hint = (
        f'Did you mean "{text}s"?' if re.fullmatch(r"\d+(\.\d+)?", text, re.ASCII) else 'Write "2s", "500ms" or "none".'
    )
    raise UsageError(f'{option}: bad duration "{text}": a number and one of the units us, ms, s, m, h, d.', hint=hint)


def parse_count(option: str, text: str) -> int | None:
    """Read a whole number, or `none` for no bound.

    Raises:
        UsageError: It is neither.
    """
    if text.lower() in NONE:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 16):
        raise UsageError(f'{option}: bad number "{text}": a whole number, or "none" for no bound.')
    return int(text)


def parse_rate(option: str, text: str) -> str | None:
    """Read `100/s`, `6000/min`, `500/10s` or `100/s burst 1000`, or `none` for no bound.

    Raises:
        UsageError: It is none of these.
    """
    if text.lower() in NONE:
        return None
    try:
        Rate.parse(text)
    except RateLimitError as error:
        raise UsageError(f"{option}: {error}.", code="bad_rate") from error
    return text


def parse_mode(option: str, text: str) -> int:
    """Read permission bits in octal, as chmod(1) does.

    Raises:
        UsageError: They are none.
    """
    if not re.fullmatch(r"(0o?)?[0-7]{1,3}", text):
        raise UsageError(f'{option}: bad mode "{text}": octal permission bits from 0 to 777, such as 660.')
    return int(text.removeprefix("0o"), 8)


def parse_name_or_number(text: str) -> str | int:
    """Read the name or number of a user or group."""
    return int(text) if text.isascii() and text.isdecimal() else text


def parse_settings(option: str, texts: list[str]) -> dict[str, bool | int | float | None]:
    """Read `KEY=VALUE`s; values are numbers, `on`, `off` or `none`, keys may have dashes for underscores.

    Raises:
        UsageError: A text has no `=`, its value is none of these, or a key comes twice.
    """
    settings: dict[str, bool | int | float | None] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        key = key.strip().replace("-", "_")
        if not equals or not key:
            raise UsageError(f'{option}: "{text}" has no "=": write KEY=VALUE, such as keepalive=on.')
        if key in settings:
            raise UsageError(f"{option}: {key} is given twice.")
        settings[key] = _parse_setting(option, key, value.strip().lower())
    return settings


def _parse_setting(option: str, key: str, value: str) -> bool | int | float | None:
    if value in NONE:
        return None
    if value in BOOLEANS:
        return BOOLEANS[value]
    if re.fullmatch(r"\d{1,18}", value, re.ASCII):
        return int(value)
    if re.fullmatch(r"\d{1,18}\.\d{1,18}", value, re.ASCII):
        return float(value)
    raise UsageError(f'{option}: bad value "{value}" of {key}: a number, on, off or none.')


def parse_content(option: str, text: str) -> bytes:
    """Read `TEXT`, sent as it is, or `@FILE`, whose bytes are sent.

    Raises:
        UsageError: The file cannot be read.
    """
    if not text.startswith("@"):
        return text.encode(errors="surrogateescape")
    try:
        return Path(text[1:]).read_bytes()
    except OSError as error:
        raise UsageError(f'{option}: cannot read "{text[1:]}": {error.strerror}.', code="cannot_read") from error


def parse_refusal(option: str, text: str) -> Literal["fin", "rst"] | bytes:
    """Read how a refused client is told: `fin`, `rst`, `static:TEXT` or `static:@FILE`.

    Raises:
        UsageError: It is none of these.
    """
    if text == "fin":
        return "fin"
    if text == "rst":
        return "rst"
    if text.startswith("static:"):
        return parse_content(option, text.removeprefix("static:"))
    raise UsageError(f'{option}: "{text}" is none of fin, rst, static:TEXT and static:@FILE.')


def parse_rule(action: str, network: str) -> str:
    """Read the network of `--allow` or `--deny`: an address, a CIDR or `all`.

    Returns:
        The rule as access rules are written.

    Raises:
        UsageError: It is none of these.
    """
    rule = f"{action} {network}"
    try:
        Rule.parse(rule)
    except InvalidRule as error:
        raise UsageError(f'bad CIDR "{network}": {error.reason.rstrip(".")}.', code="bad_cidr") from error
    return rule


def parse_rules(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Read `--allow` and `--deny` in the order typed.

    Where all of them allow, everybody else is denied: otherwise they would do nothing at all.

    Args:
        pairs: Action and network of each.

    Returns:
        The rules as access rules are written.

    Raises:
        UsageError: A network is none.
    """
    rules = [parse_rule(action, network) for action, network in pairs]
    if rules and all(rule.startswith("allow ") for rule in rules):
        rules.append("deny all")
    return rules
