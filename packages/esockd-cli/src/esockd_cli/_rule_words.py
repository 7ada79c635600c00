"""Access rules as words of a command line, or as lines of a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from esockd_cli._errors import UsageError
from esockd_cli._values import parse_rule

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ACTIONS: Final = ("allow", "deny")


def split_rules(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Tell what stands before rules from the rules: each "deny 10.0.0.0/8" as one word or as two.

    Raises:
        UsageError: A rule is not valid.
    """
    start = next(
        (index for index, word in enumerate(words) if word.split(maxsplit=1)[:1] in (["allow"], ["deny"])), None
    )
    if start is None:
        return list(words), []
    parts = [part for word in words[start:] for part in word.split()]
    return list(words[:start]), [_rule(parts[index : index + 2]) for index in range(0, len(parts), 2)]


def read_rules(lines: Iterable[str], source: str) -> list[str]:
    """Read one rule a line; empty lines, and what follows a `#`, are passed over.

    Args:
        lines: Lines.
        source: What to call them in an error.

    Raises:
        UsageError: A rule is not valid.
    """
    rules = []
    for number, line in enumerate(lines, 1):
        if parts := line.partition("#")[0].split():
            try:
                rules.append(_rule(parts))
            except UsageError as error:
                raise UsageError(f"{source}:{number}: {error.message}", code=error.code, hint=error.hint) from error
    return rules


def _rule(parts: Sequence[str]) -> str:
    if len(parts) != 2 or parts[0] not in ACTIONS:
        raise UsageError(
            f'bad rule "{" ".join(parts)}": it takes allow or deny, and an address, a CIDR or all.', code="bad_rule"
        )
    return parse_rule(*parts)
