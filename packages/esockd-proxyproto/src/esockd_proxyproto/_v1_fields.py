"""The fields of version 1's line: what their text means, and the least that would complete a part of it."""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Value = TypeVar("Value", str, int)

_SUPERFLUOUS_ZEROS: Final = re.compile("(?<![0-9])0+(?=[0-9])")


@dataclass(frozen=True, slots=True)
class Field(Generic[Value]):
    """One kind of field.

    Attributes:
        name: For messages.
        minimum: Length of the shortest valid text.
        endings: Texts, shortest first; every text that can be completed has a shortest completion among them.
        read: Gives the meaning of a whole text, or None if it is not valid.
    """

    name: str
    minimum: int
    endings: tuple[str, ...]
    read: Callable[[str], Value | None]

    def missing(self, text: str) -> int | None:
        """How many characters are missing at least to make the text valid; None if nothing can."""
        return next((len(ending) for ending in self.endings if self.read(text + ending) is not None), None)

    def first_wrong(self, text: str) -> int:
        """The first character of an invalid text after which nothing can make it valid."""
        return bisect_left(range(1, len(text)), True, key=lambda n: self.missing(text[:n]) is None)


def _read_inet(text: str) -> str | None:
    try:
        return inet_ntop(AF_INET, inet_pton(AF_INET, text))
    except OSError:
        return None


def _read_inet6(text: str) -> str | None:
    try:
        return inet_ntop(AF_INET6, inet_pton(AF_INET6, text))
    except OSError:
        return None


def _read_port(text: str) -> int | None:
    if not re.fullmatch("0|[1-9][0-9]{0,4}", text) or int(text) > 65535:
        return None
    return int(text)


_INET_ENDINGS: Final = ("", "0", ".0", "0.0", ".0.0", "0.0.0", ".0.0.0", "0.0.0.0")  # noqa: S104 - a text, not a bind
# A colon, or two, completes every unfinished row of groups; only dots need more.
_INET6_ENDINGS: Final = ("", "0", ":", "::", ":0", ".0", "0.0", ".0.0", "0.0.0")
_ANY_ENDINGS: Final = tuple(sorted({*_INET_ENDINGS, *_INET6_ENDINGS}, key=len))


def address_field(*, inet: bool, inet6: bool, leading_zeros: bool) -> Field[str]:
    """The field of an address of one family, or of either."""

    def read(text: str) -> str | None:
        plain = _SUPERFLUOUS_ZEROS.sub("", text) if leading_zeros else text
        return (_read_inet(plain) if inet else None) or (_read_inet6(text) if inet6 else None)

    name = "an IPv4 or IPv6 address" if inet and inet6 else "an IPv4 address" if inet else "an IPv6 address"
    endings = _ANY_ENDINGS if inet and inet6 else _INET_ENDINGS if inet else _INET6_ENDINGS
    return Field(name, len("::") if inet6 else len("0.0.0.0"), endings, read)  # noqa: S104


def port_field(*, leading_zeros: bool) -> Field[int]:
    """The field of a port."""

    def read(text: str) -> int | None:
        return _read_port(_SUPERFLUOUS_ZEROS.sub("", text) if leading_zeros else text)

    return Field("a port from 0 to 65535 in plain digits", 1, ("", "0"), read)
