"""What can be wrong with a rule, an address or a change, in one small tree."""

from __future__ import annotations

from typing import Final

LONGEST_QUOTE: Final = 80


class CidrError(ValueError):
    """Base of every error this package raises. Prints as `rule is 'deny 10.0.0.0/33': an IPv4 prefix length is ...`.

    Attributes:
        reason: What is wrong, or what is allowed.
        option: The name of the argument, such as `rule` or `address`; None when the error is about none of them.
        value: What was given, as its author wrote it; `...` when the error is about no value.
        hint: What to do about it, in a sentence of its own; None when the reason says it all.
        line: The line of the rule, from 1, when it was read from a whole text; else None.
    """

    def __init__(
        self,
        reason: str,
        *,
        option: str | None = None,
        value: object = ...,
        hint: str | None = None,
        line: int | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.option = option
        self.value = value
        self.hint = hint
        self.line = line

    def __str__(self) -> str:
        shown = [] if self.value is ... else [quote(self.value)]
        subject = " is ".join([self.option, *shown] if self.option else shown)
        place = "" if self.line is None else f"line {self.line}: "
        return f"{place}{subject and f'{subject}: '}{self.reason}.{f' {self.hint}' if self.hint else ''}"


class InvalidRule(CidrError):
    """The text or value is not a rule, or not a network."""


class InvalidAddress(CidrError):
    """The value is not the address of a peer."""


class DuplicateRule(CidrError):
    """The list already holds this rule (`value`), with the same action."""


class UnknownRule(CidrError):
    """The list does not hold the rule (`value`) that was to be removed."""


class InvalidPosition(CidrError):
    """The list does not have this position (`value`)."""


class HitsNotCounted(CidrError):
    """The list was made without `count_hits`."""


def quote(value: object) -> str:
    """The value as an error message shows it: escaped as `repr` does, and cut when it is long."""
    if isinstance(value, str):
        return repr(value) if len(value) <= LONGEST_QUOTE else f"{value[:LONGEST_QUOTE]!r}..."
    shown = repr(value)
    return shown if len(shown) <= LONGEST_QUOTE else f"{shown[:LONGEST_QUOTE]}..."
