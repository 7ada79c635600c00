"""The errors of a control socket, and how every error of this package crosses one."""

from __future__ import annotations

import json
from collections.abc import Sized
from typing import Any, Final

from esockd_core._errors import (
    AddressInUse,
    AlreadyOpen,
    BadValueError,
    CannotBind,
    EsockdError,
    InvalidAddress,
    InvalidOption,
    ListenerClosed,
    RehearsalConflict,
    SocketError,
    UnknownListener,
    quote,
)
from esockd_core._plain import from_json, to_json


class ControlError(EsockdError):
    """A request over a control socket failed.

    Attributes:
        code: What went wrong, for programs, such as "busy", "too_long", "invalid_request" or "internal".
        message: The same in words.
        hint: What to do about it; None if there is nothing to say.
    """

    def __init__(self, message: str, *, code: str = "internal", hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}. {self.hint}" if self.hint else self.message


class InstanceUnreachable(ControlError):  # noqa: N818 (names say what is wrong)
    """No program serves the control socket; the code is "unreachable"."""


class ControlDenied(ControlError):  # noqa: N818
    """The connection is read-only, or its user is not allowed; the code is "denied"."""


class UnknownMethod(ControlError):  # noqa: N818
    """The instance has another version and does not know the method or protocol; the code is "unknown_method"."""


LONGEST_VALUE: Final = 2_000  # as JSON; a longer one is cut as in a message

CODES: Final[dict[str, type[EsockdError]]] = {
    "invalid_option": InvalidOption,
    "invalid_address": InvalidAddress,
    "address_in_use": AddressInUse,
    "cannot_bind": CannotBind,
    "socket_error": SocketError,
    "listener_closed": ListenerClosed,
    "already_open": AlreadyOpen,
    "rehearsal_conflict": RehearsalConflict,
    "unknown_listener": UnknownListener,
    "unreachable": InstanceUnreachable,
    "denied": ControlDenied,
    "unknown_method": UnknownMethod,
}
BY_CLASS: Final = {kind: code for code, kind in CODES.items()}


def error_to_json(error: EsockdError) -> dict[str, Any]:
    """The parts of an error for an answer."""
    parts: dict[str, Any] = {"code": BY_CLASS.get(type(error), "internal"), "message": str(error)}
    if isinstance(error, BadValueError):
        parts |= {"option": error.option, "reason": error.reason, "hint": error.hint}
        if error.value is not ...:
            parts["value"] = _plain(error.value)
    elif isinstance(error, SocketError):
        parts |= {"errno": error.errno, "reason": error.strerror, "hint": error.hint}
    elif isinstance(error, ControlError):
        parts |= {"code": error.code, "reason": error.message, "hint": error.hint}
    else:
        parts["reason"] = str(error)
    return parts


def error_from_json(parts: dict[str, Any]) -> EsockdError:
    """Make the error of an answer, with its original class."""
    code = _text(parts.get("code")) or "internal"
    reason = _text(parts.get("reason")) or _text(parts.get("message")) or "the instance did not say why"
    hint = _text(parts.get("hint"))
    kind = CODES.get(code, ControlError)
    if issubclass(kind, BadValueError):
        return kind(reason, option=_text(parts.get("option")), value=_value(parts), hint=hint)
    if issubclass(kind, SocketError):
        number = parts.get("errno")
        return kind(number if isinstance(number, int) else None, reason, hint)
    if issubclass(kind, ControlError):
        return kind(reason, code=code, hint=hint)
    return kind(reason)


def _plain(value: object) -> object:
    if isinstance(value, Sized) and len(value) > LONGEST_VALUE:
        return quote(value)
    try:
        plain = to_json(value)
    except TypeError:
        return quote(value)
    return plain if len(json.dumps(plain)) <= LONGEST_VALUE else quote(value)


def _value(parts: dict[str, Any]) -> object:
    try:
        return from_json(parts["value"]) if "value" in parts else ...
    except ValueError:  # what looks like bytes and is not
        return parts["value"]


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
