"""Parts that checks of values share: what a number is, how choices are written, and what may have been meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from math import isfinite
from typing import TYPE_CHECKING, Any, cast

from esockd_cidr import AccessList

if TYPE_CHECKING:
    from collections.abc import Sequence


def did_you_mean(given: str, known: Iterable[str], form: str = "{}", *, cutoff: float = 0.6) -> str | None:
    """A hint that names the known word closest to a wrong one.

    Args:
        given: The wrong word.
        known: The words that would be right.
        form: The proposal, with the word in place of `{}`.
        cutoff: How similar the words have to be, from 0 to 1.

    Returns:
        The hint; None when no word is close.
    """
    close = get_close_matches(given, known, n=1, cutoff=cutoff)
    return f'Did you mean "{form.replace("{}", close[0])}"?' if close else None


def one_of(words: Sequence[str]) -> str:
    """Several words as a choice: `a, b or c`."""
    return " or ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def is_whole(value: object) -> bool:
    """Whether it is a whole number. A bool is not."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether it is a finite number. A bool is not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def kept(values: Any) -> Any:
    """Several values as a tuple, so that an iterator is read once. Anything else is returned for a check to refuse."""
    is_several = isinstance(values, Iterable) and not isinstance(values, AccessList | str | bytes)
    return tuple(cast("Iterable[Any]", values)) if is_several else values
