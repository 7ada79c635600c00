"""Reading what only the command line has: contents of `static:`, and `--allow` and `--deny` as access rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from esockd_cidr import InvalidRule, Rule
from esockd_cli._errors import UsageError
from esockd_core import read_regular_file

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_CONTENT_BYTES: Final = 1 << 20  # all of it is in memory, and is sent to every client


def parse_content(option: str, text: str) -> bytes:
    """Read `TEXT`, sent as it is, or `@FILE`, whose bytes are sent.

    Raises:
        UsageError: The file cannot be read, is a pipe or a device, or holds more than 1 MiB.
    """
    if not text.startswith("@"):
        return text.encode(errors="surrogateescape")
    try:
        return read_regular_file(text[1:], MAX_CONTENT_BYTES)
    except OSError as error:
        raise UsageError(f'{option}: cannot read "{text[1:]}": {error.strerror}.', code="cannot_read") from error


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
        raise UsageError(f'bad CIDR "{network}": {error.reason}.', code="bad_cidr", hint=error.hint) from error
    return rule


def parse_rules(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Read `--allow` and `--deny` in the order typed.

    Where all of them allow, everybody else is denied: otherwise they would do nothing at all.

    Args:
        pairs: Action and network of each.

    Returns:
        The rules as access rules are written.

    Raises:
        UsageError: One is not a network.
    """
    rules = [parse_rule(action, network) for action, network in pairs]
    if rules and all(rule.startswith("allow ") for rule in rules):
        rules.append("deny all")
    return rules
