"""Why an instance did not do what it was asked, in the words of the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from esockd_cli._bad_options import bad_option
from esockd_cli._errors import CommandError, ExitCode, UsageError, bad_value
from esockd_core import (
    AddressInUse,
    ControlDenied,
    ControlError,
    InstanceUnreachable,
    InvalidAddress,
    InvalidOption,
    ListenerClosed,
    RehearsalConflict,
    SocketError,
    UnknownListener,
)

if TYPE_CHECKING:
    from esockd_core import BadValueError, EsockdError

START_ONE: Final = "Start one: esockd open echo 5000"
# What the arguments of the library are called where they are typed, with the code for scripts.
SUBJECTS: Final = {
    "network": ("bad CIDR", "bad_cidr"),
    "address": ("bad address", "bad_address"),
    "proxy": ("bad address", "bad_address"),
    "rule": ("bad rule", "bad_rule"),
    "rules": ("bad rule", "bad_rule"),
}


def command_error(error: EsockdError) -> CommandError:  # noqa: PLR0911 (one for each kind)
    """The error of a command for one that an instance, or the way to it, has raised."""
    match error:
        case InvalidOption() | InvalidAddress():
            return _bad_argument(error)
        case InstanceUnreachable():
            hint = error.hint or START_ONE
            return CommandError(f"{error.message}.", code="no_instance", status=ExitCode.NOT_FOUND, hint=hint)
        case ControlDenied():
            return CommandError(f"{error.message}.", code="denied", status=ExitCode.DENIED, hint=error.hint)
        case ControlError():
            return CommandError(f"{error.message}.", code=error.code, status=ExitCode.FAILED, hint=error.hint)
        case UnknownListener():
            return CommandError(f"{error}.", code="unknown_listener", status=ExitCode.NOT_FOUND)
        case ListenerClosed():
            return CommandError(f"{error}.", code="listener_closed", status=ExitCode.FAILED)
        case RehearsalConflict():
            return CommandError(f"{error}.", code="rehearsal_conflict", status=ExitCode.FAILED)
        case SocketError():
            code = "address_in_use" if isinstance(error, AddressInUse) else "cannot_bind"
            return CommandError(f"{error.strerror}.", code=code, status=ExitCode.CANNOT_START, hint=error.hint)
    return CommandError(f"{error}.", code="control", status=ExitCode.FAILED)


def _bad_argument(error: BadValueError) -> UsageError:
    name = error.option or ""
    if isinstance(error, InvalidAddress):
        name = "address"
    if name in SUBJECTS:
        words, code = SUBJECTS[name]
        return bad_value(error, f'{words} "{error.value}"', code=code)
    subject = name if error.value is ... else f"{name} {error.value}"
    return bad_value(error, subject.strip() or "this change")


def cannot_start(error: Exception) -> CommandError:
    """Why listeners cannot be opened."""
    if isinstance(error, SocketError):
        code = "address_in_use" if isinstance(error, AddressInUse) else "cannot_bind"
        return CommandError(f"{error.strerror}.", code=code, status=ExitCode.CANNOT_START, hint=error.hint)
    return bad_option(error) if isinstance(error, InvalidOption) else UsageError(f"{error}.")
