"""Networks: `10.0.0.0/8` and `2001:db8::/32`, read strictly and written plainly."""

from __future__ import annotations

from dataclasses import dataclass, field
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import Final, Literal

from esockd_cidr._errors import InvalidRule
from esockd_cidr._mistakes import NO_PORT, why_no_network, why_no_prefix_length, without_port

WIDTH: Final = {4: 32, 6: 128}
MAPPED_FIRST: Final = 0xFFFF << 32  # ::ffff:0:0/96, the IPv4-mapped addresses of RFC 4291, 2.5.5.2
MAPPED_LAST: Final = MAPPED_FIRST | 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Network:
    """A block of IPv4 or IPv6 addresses.

    Attributes:
        version: 4 or 6. A network of IPv4-mapped IPv6 addresses is read as the IPv4 network it stands for.
        first: The lowest address, as an integer.
        prefixlen: The length of the prefix: 0 to 32 bits in IPv4, 0 to 128 in IPv6.
        host_bits: The bits to the right of the prefix that were set as written and cleared to get `first`; 0 when the
            network was written exactly. Comparisons ignore it.

    Raises:
        InvalidRule: If no network has these values.
    """

    version: Literal[4, 6]
    first: int
    prefixlen: int
    host_bits: int = field(default=0, compare=False, repr=False)

    def __post_init__(self) -> None:
        width = WIDTH.get(self.version)
        if width is None:
            raise InvalidRule("the version of a network is 4 or 6", option="version", value=self.version)
        if not 0 <= self.prefixlen <= width:
            raise InvalidRule(_prefix_lengths(self.version), option="prefixlen", value=self.prefixlen)
        if not 0 <= self.first < 1 << width:
            reason = f"an IPv{self.version} address as an integer is 0 to 2**{width} - 1"
            raise InvalidRule(reason, option="first", value=self.first)
        if self.first & (1 << width - self.prefixlen) - 1:
            reason = f"a network's first address has no bits to the right of its prefix, here of {self.prefixlen}"
            raise InvalidRule(reason, option="first", value=self.first)
        if MAPPED_FIRST <= self.first <= MAPPED_LAST and self.prefixlen >= 96:
            hint = "Use version 4, the low 32 bits and a prefix length that is 96 smaller."
            raise InvalidRule("IPv4-mapped addresses are written as IPv4", option="first", value=self.first, hint=hint)

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

    It reads strictly: an IPv4 address has four parts without leading zeros, and there are no netmasks, zone ids or
    blanks. Bits to the right of the prefix are cleared, and kept in `host_bits` so that the caller can object. A prefix
    length may have leading zeros.

    Args:
        text: Such as `10.0.0.0/8`, `192.168.1.1`, `2001:db8::/32` or `::ffff:10.0.0.0/104`, which is `10.0.0.0/8`.

    Raises:
        InvalidRule: If the text is not a network; the error says why.
    """
    if not isinstance(text, str):
        raise InvalidRule(f"it takes text such as 10.0.0.0/8, not {type(text).__name__}", option="network", value=text)
    address, slash, suffix = text.partition("/")
    version: Literal[4, 6] = 6 if ":" in address else 4
    try:
        value = int.from_bytes(inet_pton(AF_INET6 if version == 6 else AF_INET, address))
    except (OSError, ValueError):
        reason, hint = why_no_network(text)
        raise InvalidRule(reason, option="network", value=text, hint=hint) from None
    width = WIDTH[version]
    prefixlen = _prefix_length(text, suffix, version) if slash else width
    if version == 6 and prefixlen >= 96 and value >> 32 == 0xFFFF:
        version, value, prefixlen, width = 4, value & 0xFFFFFFFF, prefixlen - 96, 32
    host_bits = value & (1 << width - prefixlen) - 1
    return Network(version, value ^ host_bits, prefixlen, host_bits)


def _prefix_length(text: str, digits: str, version: Literal[4, 6]) -> int:
    if not (digits.isascii() and digits.isdigit()):
        if plain := without_port(text):
            raise InvalidRule(NO_PORT, option="network", value=text, hint=f"Write {plain}.")
        reason = f"a prefix length is plain digits, 0 to {WIDTH[version]}"
        raise InvalidRule(reason, option="network", value=text, hint=why_no_prefix_length(digits))
    significant = digits.lstrip("0") or "0"
    if len(significant) > 3 or int(significant) > WIDTH[version]:
        raise InvalidRule(_prefix_lengths(version), option="network", value=text)
    return int(significant)


def _prefix_lengths(version: Literal[4, 6]) -> str:
    return f"an IPv{version} prefix length is 0 to {WIDTH[version]}"
