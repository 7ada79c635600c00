"""The number of workers, as a command line and a file give it."""

from __future__ import annotations

from esockd_cli._errors import bad_value
from esockd_core import InvalidOption
from esockd_core.workers import Workers


def read_worker_count(text: str) -> int | None:
    """Read the number of workers; None for one for each processor.

    Raises:
        InvalidOption: It is not a number, or there cannot be that many.
    """
    if text == "auto":
        return None
    if not (text.isascii() and text.isdecimal()):
        reason = 'it takes a number, or "auto" for one for each processor'
        raise InvalidOption(reason, option="workers", value=text)
    return worker_number(int(text))


def worker_number(count: int | None) -> int:
    """How many workers that are; None is one for each processor.

    Raises:
        InvalidOption: There cannot be that many.
    """
    return Workers([], count=count).count


def read_workers(text: str) -> int | None:
    """Read the number of workers of a command line; None for one for each processor.

    Raises:
        UsageError: It is not a number, or there cannot be that many.
    """
    try:
        return read_worker_count(text)
    except InvalidOption as error:
        raise bad_value(error, f"--workers {text}") from error
