"""Arguments that are not rates: whole numbers, seconds, and words of a choice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._errors import InvalidOption

if TYPE_CHECKING:
    from collections.abc import Collection


def check_count(value: object, option: str, least: int, *, optional: bool = False) -> None:
    """Refuse what is not a whole number from `least` up, or None where that is allowed.

    Raises:
        InvalidOption: If it is not.
    """
    if optional and value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        reason = f"it takes a whole number, {least} or more{', or None for no bound' if optional else ''}"
        raise InvalidOption(reason, option=option, value=value)


def check_seconds(value: object, option: str) -> None:
    """Refuse what is not a time above 0.

    Raises:
        InvalidOption: If it is not.
    """
    if not (isinstance(value, int | float) and not isinstance(value, bool) and value > 0):
        raise InvalidOption("it takes seconds, more than 0", option=option, value=value)


def check_choice(value: object, option: str, choices: Collection[str]) -> None:
    """Refuse what is not one of the words.

    Raises:
        InvalidOption: If it is not.
    """
    if value not in choices:
        *first, last = map(repr, choices)
        raise InvalidOption(f"it takes {', '.join(first)} or {last}", option=option, value=value)
