"""The errors of esockd-core. Each has one common base, and the built-in class that a caller would expect."""

from __future__ import annotations

from typing import Final, Self

from anyio import BrokenResourceError, DelimiterNotFound

LONGEST_QUOTE: Final = 200


class EsockdError(Exception):
    """Base of every error of this package."""


class BadValueError(EsockdError, ValueError):
    """Base of the errors about a value that was given. Prints as `max_connections is 0: it takes ...`.

    Attributes:
        option: The name of the option or argument, such as "tcp.backlog"; None if several are wrong together.
        value: The value that was given; `...` if it is not worth showing.
        reason: What is wrong, or what is allowed.
        hint: What to do about it, as a sentence of its own; None if the reason says it all.
    """

    def __init__(self, reason: str, *, option: str | None = None, value: object = ..., hint: str | None = None) -> None:
        super().__init__(reason)
        self.option = option
        self.value = value
        self.reason = reason
        self.hint = hint

    @classmethod
    def because(cls, error: Exception, option: str, value: object) -> Self:
        """Make the error of a value that another package or a lower layer has refused.

        Args:
            error: The error of that layer; its `reason` and `hint` are taken over, or else its text.
            option: The option or argument that the value was given for.
            value: The value that was given.
        """
        return cls(getattr(error, "reason", str(error)), option=option, value=value, hint=getattr(error, "hint", None))

    def __str__(self) -> str:
        shown = [] if self.value is ... else [quote(self.value)]
        subject = " is ".join(shown if self.option is None else [self.option, *shown])
        hint = "" if self.hint is None else f" {self.hint}"
        return f"{subject and f'{subject}: '}{self.reason.removesuffix('.')}.{hint}"


def quote(value: object) -> str:
    """A value as messages show it: escaped as by `repr`, and cut if it is long."""
    shown = repr(value)
    return shown if len(shown) <= LONGEST_QUOTE else f"{shown[:LONGEST_QUOTE]}..."


class InvalidAddress(BadValueError):  # noqa: N818 (names say what is wrong, not that something is)
    """A text or object is not an address that `parse_address` reads."""


class InvalidOption(BadValueError):  # noqa: N818
    """The value of an option is not allowed, or does not apply to this kind of address."""


class SocketError(EsockdError, OSError):
    """A system call on a listening socket failed. The text tells what failed, why, and what to do.

    Attributes:
        errno: The kernel's number of the error.
        strerror: What failed, and why.
        hint: What to do about it, as a sentence of its own; None if there is nothing to say.
    """

    def __init__(self, number: int | None, reason: str, hint: str | None = None) -> None:
        super().__init__(number, reason)
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.strerror}. {self.hint}" if self.hint else str(self.strerror)


class AddressInUse(SocketError):  # noqa: N818
    """Somebody else listens on the address."""


class CannotBind(SocketError):  # noqa: N818
    """The address cannot be resolved, bound or taken over."""


class ListenerClosed(EsockdError):  # noqa: N818
    """The listener is not open."""


class RehearsalConflict(EsockdError):  # noqa: N818
    """Another rehearsal is running, none is there, or somebody has changed what it changes."""


class AlreadyOpen(EsockdError, ValueError):  # noqa: N818
    """The server already has a listener with that name and address."""


class UnknownListener(EsockdError, KeyError):  # noqa: N818
    """The server has no listener with that name and address."""

    def __str__(self) -> str:
        return str(self.args[0])


class MessageCutShort(EsockdError, BrokenResourceError):  # noqa: N818
    """The peer finished sending in the middle of a message. The beginning of it can still be received."""


class DatagramTooLong(BadValueError):  # noqa: N818
    """A datagram has more bytes than one to this peer may have."""


class MessageTooLong(EsockdError, DelimiterNotFound):  # noqa: N818
    """The peer sent more than a message may have, without the delimiter that ends it."""

    def __init__(self, reason: str) -> None:
        Exception.__init__(self, reason)
