"""Networks: the strict reading and the plain writing of `10.0.0.0/8` and `2001:db8::/32`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import Final, Literal

from esockd_cidr._errors import InvalidRule

WIDTH: Final = {4: 32, 6: 128}
MAPPED_FIRST: Final = 0xFFFF << 32  # ::ffff:0:0/96, the IPv4-mapped addresses of RFC 4291, 2.5.5.2
MAPPED_LAST: Final = MAPPED_FIRST | 0xFFFFFFFF

_NETMASK = re.compile(r"\d+\.\d+\.\d+\.\d+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Network:
    """A block of IPv4 or IPv6 addresses.

    Attributes:
        version: 4 or 6. Networks of IPv4-mapped IPv6 addresses are read as the IPv4 networks they stand for.
        first: The lowest address, as an integer.
        prefixlen: The length of the prefix: 0 to 32 bits in IPv4, 0 to 128 in IPv6.
        host_bits: The bits right of the prefix that the author had set, and that were cleared to get `first`; 0 when
            the network was written exactly. It takes no part in comparisons.

    Raises:
        InvalidRule: The values are those of no network.
    """

    version: Literal[4, 6]
    first: int
    prefixlen: int
    host_bits: int = field(default=0, compare=False, repr=False)

    def __post_init__(self) -> None:
        width = WIDTH.get(self.version, 0)
        if not (0 <= self.prefixlen <= width and 0 <= self.first < 1 << width) or not width:
            raise InvalidRule(self, "a network has version 4 or 6, and address and prefix length within its family")
        if self.first & (1 << width - self.prefixlen) - 1:
            raise InvalidRule(self, "no bits right of the prefix may be set in the first address of a network")
        if MAPPED_FIRST <= self.first <= MAPPED_LAST and self.prefixlen >= 96:
            raise InvalidRule(self, "a network of IPv4-mapped addresses is written as an IPv4 network")

    @property
    def last(self) -> int:
        """The highest address, as an integer."""
        return self.first | (1 << WIDTH[self.version] - self.prefixlen) - 1

    def __str__(self) -> str:
        if self.version == 4:
            address = inet_ntop(AF_INET, self.first.to_bytes(4))
        else:
            address = inet_ntop(AF_INET6, self.first.to_bytes(16))
        return address if self.prefixlen == WIDTH[self.version] else f"{address}/{self.prefixlen}"


def parse_network(text: str) -> Network:
    """Read an address or an address with a prefix length.

    Strict: all four parts of an IPv4 address without leading zeros, no netmask, no zone id, no blanks. Bits right of
    the prefix are cleared, and kept in `host_bits` so that the caller can object. A prefix length may have leading
    zeros.

    Args:
        text: Such as `10.0.0.0/8`, `192.168.1.1`, `2001:db8::/32` or `::ffff:10.0.0.0/104`, which is `10.0.0.0/8`.

    Raises:
        InvalidRule: The text is no network; the error says why.
    """
    if not isinstance(text, str):
        raise InvalidRule(text, f"a network is text such as 10.0.0.0/8, not {type(text).__name__}")
    address, slash, suffix = text.partition("/")
    version: Literal[4, 6] = 6 if ":" in address else 4
    try:
        value = int.from_bytes(inet_pton(AF_INET6 if version == 6 else AF_INET, address))
    except (OSError, ValueError):
        raise InvalidRule(text, _why_no_address(address)) from None
    width = WIDTH[version]
    prefixlen = _prefix_length(text, suffix, version) if slash else width
    if version == 6 and prefixlen >= 96 and value >> 32 == 0xFFFF:
        version, value, prefixlen, width = 4, value & 0xFFFFFFFF, prefixlen - 96, 32
    host_bits = value & (1 << width - prefixlen) - 1
    return Network(version, value ^ host_bits, prefixlen, host_bits)


def _prefix_length(text: str, digits: str, version: Literal[4, 6]) -> int:
    if not (digits.isascii() and digits.isdigit()):
        hint = "; write a number such as 24, not a mask" if _NETMASK.fullmatch(digits) else ""
        raise InvalidRule(text, f"a prefix length is plain digits, 0 to {WIDTH[version]}{hint}")
    significant = digits.lstrip("0") or "0"
    if len(significant) > 3 or int(significant) > WIDTH[version]:
        raise InvalidRule(text, f"an IPv{version} prefix length is 0 to {WIDTH[version]}")
    return int(significant)


_LOOKS_LIKE: Final = (
    (re.compile(r"\s"), "no blanks may stand inside a network"),
    (re.compile(r"%"), "a rule cannot have a zone id; rules match an address in every zone"),
    (re.compile(r":"), "not an IPv6 address; write one such as 2001:db8::1 or 2001:db8::/32"),
    (re.compile(r"\A\d+(\.\d+){0,2}\Z", re.ASCII), "an IPv4 address has four parts; write 10.0.0.0/8 rather than 10/8"),
    (re.compile(r"\A(\d+\.)*0\d+(\.\d+)*\Z", re.ASCII), "no leading zeros in an IPv4 address; some read them as octal"),
    (re.compile(r"\A\d+(\.\d+){3}\Z", re.ASCII), "each part of an IPv4 address is 0 to 255"),
    (re.compile(r""), "not an IPv4 or IPv6 address; write one such as 10.0.0.0/8 or 2001:db8::/32"),
)


def _why_no_address(address: str) -> str:
    return next(reason for pattern, reason in _LOOKS_LIKE if pattern.search(address))
