"""What can be wrong with a rule, an address or a change, in one small tree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from esockd_cidr._rule import Rule

LONGEST_QUOTE: Final = 80


class CidrError(ValueError):
    """Base of every error this package raises."""


class InvalidRule(CidrError):  # noqa: N818 (named by what is wrong, as h11 and httpcore do)
    """A text or a value that is no rule, or no network.

    Attributes:
        given: What was given, as its author wrote it.
        reason: What is wrong, what is allowed, and what to write instead.
        line: The line it stands on, from 1, when it was read from a whole text; else None.
    """

    def __init__(self, given: object, reason: str, line: int | None = None) -> None:
        super().__init__(given, reason, line)
        self.given = given
        self.reason = reason
        self.line = line

    def __str__(self) -> str:
        place = "" if self.line is None else f"line {self.line}: "
        return f"{place}bad rule {quote(self.given)}: {self.reason}"


class InvalidAddress(CidrError):  # noqa: N818 (named by what is wrong, as h11 and httpcore do)
    """A value that is not the address of a peer.

    Attributes:
        given: What was given.
        reason: What is wrong with it and what is allowed.
    """

    def __init__(self, given: object, reason: str) -> None:
        super().__init__(given, reason)
        self.given = given
        self.reason = reason

    def __str__(self) -> str:
        return f"bad address {quote(self.given)}: {self.reason}"


class DuplicateRule(CidrError):  # noqa: N818 (named by what is wrong, as h11 and httpcore do)
    """A rule that the list holds already, with the same action.

    Attributes:
        rule: The rule.
        line: The line of its second appearance, from 1, when it was read from a whole text; else None.
    """

    def __init__(self, rule: Rule, line: int | None = None) -> None:
        super().__init__(rule, line)
        self.rule = rule
        self.line = line

    def __str__(self) -> str:
        place = "" if self.line is None else f"line {self.line}: "
        return f'{place}duplicate rule "{self.rule}": the list holds it already; remove that one first to move it'


class UnknownRule(CidrError):  # noqa: N818 (named by what is wrong, as h11 and httpcore do)
    """A rule to remove that the list does not hold.

    Attributes:
        rule: The rule.
    """

    def __init__(self, rule: Rule) -> None:
        super().__init__(rule)
        self.rule = rule

    def __str__(self) -> str:
        return f'unknown rule "{self.rule}": the list holds no such rule with that action'


class InvalidPosition(CidrError):  # noqa: N818 (named by what is wrong, as h11 and httpcore do)
    """A position that the list does not have.

    Attributes:
        index: The position that was given.
        length: How many rules the list holds.
    """

    def __init__(self, index: int, length: int) -> None:
        super().__init__(index, length)
        self.index = index
        self.length = length

    def __str__(self) -> str:
        return (
            f"bad position {self.index}: a rule can be inserted at 0, before all others, to {self.length}, behind them"
        )


def quote(given: object) -> str:
    """The value as an error message shows it: escaped, in double quotes when it is text, and never endless."""
    if not isinstance(given, str):
        shown = repr(given)
        return shown if len(shown) <= LONGEST_QUOTE else f"{shown[:LONGEST_QUOTE]}..."
    escaped = given[:LONGEST_QUOTE].encode("unicode_escape").decode("ascii").replace('"', '\\"')
    return f'"{escaped}"' if len(given) <= LONGEST_QUOTE else f'"{escaped}"...'
