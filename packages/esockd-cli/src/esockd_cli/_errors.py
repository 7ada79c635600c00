"""How a command fails: one message for people, one code for scripts, one exit status."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit statuses of every command."""

    OK = 0
    FAILED = 1
    USAGE = 2
    CANNOT_START = 3
    INTERRUPTED = 130


class CommandError(Exception):
    """Ends the command with a message and an exit status.

    Attributes:
        message: What was given and what is wrong with it, in one sentence without a closing hint.
        hint: What to do about it; None when the message says so.
        code: A word for scripts, such as "address_in_use".
        status: The exit status.
    """

    def __init__(self, message: str, *, code: str, status: ExitCode, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code
        self.status = status


class UsageError(CommandError):
    """An option or argument has a value that it cannot have."""

    def __init__(self, message: str, *, code: str = "usage", hint: str | None = None) -> None:
        super().__init__(message, code=code, status=ExitCode.USAGE, hint=hint)
