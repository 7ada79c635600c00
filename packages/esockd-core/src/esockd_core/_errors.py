"""What esockd-core raises: one base class, and beside it the built-in class a caller would expect."""

from __future__ import annotations


class EsockdError(Exception):
    """Base of every error this package raises by itself."""


class InvalidAddress(EsockdError, ValueError):  # noqa: N818 (names say what is wrong, not that something is)
    """The text or object given is no address of the grammar that `parse_address` reads."""


class InvalidOption(EsockdError, ValueError):  # noqa: N818
    """An option's value is outside what is allowed, or does not apply to this kind of address."""


class SocketError(EsockdError, OSError):
    """A system call on a listening socket failed; `errno` keeps the kernel's reason, the text is the whole story."""

    def __str__(self) -> str:
        return str(self.strerror)


class AddressInUse(SocketError):  # noqa: N818
    """Somebody else listens on the address."""


class CannotBind(SocketError):  # noqa: N818
    """The address cannot be resolved, bound or taken over."""


class ListenerClosed(EsockdError):  # noqa: N818
    """The listener is not open, or not any more."""


class AlreadyOpen(EsockdError, ValueError):  # noqa: N818
    """The server has a listener of that name and address."""


class UnknownListener(EsockdError, KeyError):  # noqa: N818
    """The server has no listener of that name and address."""

    def __str__(self) -> str:
        return str(self.args[0])
