"""Addresses of peers: every form a program may hold one in, read as a version and an integer."""

from __future__ import annotations

from socket import AF_INET, AF_INET6, inet_pton
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from esockd_cidr._errors import InvalidAddress

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

Address: TypeAlias = "str | bytes | int | IPv4Address | IPv6Address"
"""A peer: text (`unix:` and what follows for a Unix socket), 4 or 16 packed bytes, an integer beside its version, or an
object of the standard library's `ipaddress`."""

ALLOWED: Final = "give text, 4 or 16 packed bytes, an integer with its version, or an ipaddress object"


def parse_address(address: Address, version: Literal[4, 6] | None = None) -> tuple[Literal[0, 4, 6], int]:
    """The version and the value of an address: IPv4 for an IPv4-mapped one, version 0 for a Unix peer.

    Raises:
        InvalidAddress: It is no address.
    """
    if isinstance(address, str) and version is None:
        try:
            if ":" not in address:
                return 4, int.from_bytes(inet_pton(AF_INET, address))
            if address.startswith("unix:"):
                return 0, 0
            return _unmap(int.from_bytes(inet_pton(AF_INET6, address.partition("%")[0])))
        except (OSError, ValueError):
            raise not_an_address(address) from None
    if isinstance(address, int) and not isinstance(address, bool):
        return _from_int(address, version)
    if version is not None:
        raise InvalidAddress(address, "a version goes with an integer and with nothing else")
    packed: object = address if isinstance(address, bytes) else getattr(address, "packed", None)
    if not isinstance(packed, bytes) or len(packed) not in (4, 16):
        raise InvalidAddress(address, ALLOWED)
    value = int.from_bytes(packed)
    return (4, value) if len(packed) == 4 else _unmap(value)


def not_an_address(text: str) -> InvalidAddress:
    """The error for a text that is no address."""
    return InvalidAddress(text, "write a plain IPv4 or IPv6 address, without port, brackets or blanks; no host name")


def _from_int(value: int, version: int | None) -> tuple[Literal[4, 6], int]:
    bits = {4: 32, 6: 128}.get(version or 0)
    if bits is None:
        raise InvalidAddress(value, f"an integer needs its version, 4 or 6, beside it, not {version!r}")
    if not 0 <= value < 1 << bits:
        raise InvalidAddress(value, f"an IPv{version} address as an integer is 0 to 2**{bits} - 1")
    return (4, value) if bits == 32 else _unmap(value)


def _unmap(value: int) -> tuple[Literal[4, 6], int]:
    return (4, value & 0xFFFFFFFF) if value >> 32 == 0xFFFF else (6, value)
