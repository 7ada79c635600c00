"""How a command fails: one message for people, one code for scripts, one exit status."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from esockd_core import BadValueError


class ExitCode(IntEnum):
    """The exit statuses of every command."""

    OK = 0
    FAILED = 1
    USAGE = 2
    CANNOT_START = 3
    NOT_FOUND = 4
    DENIED = 5
    INTERRUPTED = 130


def end_once(sentence: str) -> str:
    """A sentence whose last words, with a full stop of their own or without, were followed by one."""
    return sentence[:-1] if sentence.endswith("..") and not sentence.endswith("...") else sentence


class CommandError(Exception):
    """Ends the command with a message and an exit status.

    Attributes:
        message: What was given and what is wrong with it, in one sentence without a closing hint. Where the text of
            another error ends it, one full stop is left of two.
        hint: What to do about it; None when the message says so.
        code: A word for scripts, such as "address_in_use".
        status: The exit status.
    """

    def __init__(self, message: str, *, code: str, status: ExitCode, hint: str | None = None) -> None:
        self.message: str = end_once(message)
        super().__init__(self.message)
        self.hint = hint
        self.code = code
        self.status = status


class UsageError(CommandError):
    """An option or argument has a value that it cannot have."""

    def __init__(self, message: str, *, code: str = "usage", hint: str | None = None) -> None:
        super().__init__(message, code=code, status=ExitCode.USAGE, hint=hint)


def bad_value(error: BadValueError, subject: str, *, code: str = "bad_option", hint: str | None = None) -> UsageError:
    """Say in the words of the command line that a value is wrong.

    Args:
        error: What is wrong with it.
        subject: The option and its value as they were typed.
        code: A word for scripts.
        hint: What to do about it; the error's own hint when not given.
    """
    return UsageError(f"{subject}: {error.reason.removesuffix('.')}.", code=code, hint=hint or error.hint)


def did_you_mean(given: str, known: Iterable[str]) -> str | None:
    """A hint that names the word closest to a wrong one; None when none is close."""
    from difflib import get_close_matches  # noqa: PLC0415 - where something is wrong

    near = get_close_matches(given, known, n=1)
    return f'Did you mean "{near[0]}"?' if near else None
