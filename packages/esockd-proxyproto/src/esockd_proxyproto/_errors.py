"""What can be wrong with a header: one small tree of errors."""

from __future__ import annotations

from typing import Final

LONGEST_QUOTE: Final = 80


class ProxyProtocolError(ValueError):
    """Base of every error of this package."""


class IncompleteHeader(ProxyProtocolError):
    """The bytes are a strict prefix of at least one valid header.

    Attributes:
        missing: How many bytes are missing, at least 1. The shortest header that starts like this one needs exactly
            this many, so that a receiver that asks for no more never reads past the header.
    """

    def __init__(self, missing: int) -> None:
        super().__init__(missing)
        self.missing = missing

    def __str__(self) -> str:
        return f"incomplete PROXY protocol header: at least {self.missing} more bytes are needed"


class InvalidHeader(ProxyProtocolError):
    """No bytes to come can make this a valid header: abort the connection.

    Attributes:
        reason: What was found and what is allowed.
        offset: Where the first wrong byte or field begins, counted from the start of the header.
        section: The part of HAProxy's specification that decides, such as ``"PP 2.2"``.
    """

    def __init__(self, reason: str, offset: int, section: str) -> None:
        super().__init__(reason, offset, section)
        self.reason = reason
        self.offset = offset
        self.section = section

    def __str__(self) -> str:
        return f"invalid PROXY protocol header at byte {self.offset}: {self.reason} ({self.section})"


class NotProxyHeader(InvalidHeader):
    """The bytes begin with neither signature: the sender does not speak the PROXY protocol at all."""


class HeaderComplete(ProxyProtocolError):
    """A decoder was fed after its header was complete: these bytes belong to what comes after the header."""


class BadValueError(ProxyProtocolError):
    """Base of the errors about one value. Prints as ``max_length is 1: it takes 216 to 65535``.

    Attributes:
        reason: What is wrong, or what is allowed.
        option: The name of the argument or field, such as ``source``; None when several do not go together.
        value: What was given; ``...`` when the error is about no single value.
        hint: What to do about it, in a sentence of its own; None when the reason says it all.
    """

    def __init__(self, reason: str, *, option: str | None = None, value: object = ..., hint: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.option = option
        self.value = value
        self.hint = hint

    def __str__(self) -> str:
        shown = [] if self.value is ... else [quote(self.value)]
        subject = " is ".join([self.option, *shown] if self.option else shown)
        return f"{subject and f'{subject}: '}{self.reason}.{f' {self.hint}' if self.hint else ''}"


class InvalidOption(BadValueError):
    """An argument that says how to read headers, or whom to take them from, is outside what is allowed."""


class InvalidTlv(BadValueError):
    """A typed view was asked for, and the raw value is not of that type. The header itself is sound."""


class UnencodableHeader(BadValueError):
    """The header that was asked for cannot be written in the protocol."""


def quote(value: object) -> str:
    """The value as an error message shows it: escaped as `repr` does, and cut when it is long."""
    if isinstance(value, str | bytes):
        return repr(value) if len(value) <= LONGEST_QUOTE else f"{value[:LONGEST_QUOTE]!r}..."
    shown = repr(value)
    return shown if len(shown) <= LONGEST_QUOTE else f"{shown[:LONGEST_QUOTE]}..."
