"""What can be wrong with a header: one small tree of errors."""

from __future__ import annotations


class ProxyProtocolError(ValueError):
    """Base of every error of this package."""


class IncompleteHeader(ProxyProtocolError):  # noqa: N818 - the three answers are what callers name
    """The bytes are a strict prefix of at least one valid header.

    Attributes:
        missing: How many bytes are certainly missing, at least 1. The shortest header that starts like this one needs
            exactly so many, so a receiver that reads no more than this never reads past the header.
    """

    def __init__(self, missing: int) -> None:
        super().__init__(missing)
        self.missing = missing

    def __str__(self) -> str:
        return f"incomplete PROXY protocol header: at least {self.missing} more bytes are needed"


class InvalidHeader(ProxyProtocolError):  # noqa: N818 - the three answers are what callers name
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


class InvalidTlv(ProxyProtocolError):  # noqa: N818 - the three answers are what callers name
    """A typed view was asked for, and the raw value is not of that type. The header itself is sound."""


class UnencodableHeader(ProxyProtocolError):  # noqa: N818 - the three answers are what callers name
    """The header that was asked for cannot be written in the protocol."""
