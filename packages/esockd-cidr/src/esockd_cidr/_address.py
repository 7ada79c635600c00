"""Addresses of peers, in every form a program may hold them, read as a version and an integer."""

from __future__ import annotations

from socket import AF_INET, AF_INET6, inet_pton
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from esockd_cidr._errors import InvalidAddress
from esockd_cidr._mistakes import why_no_peer

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

Address: TypeAlias = "str | bytes | int | IPv4Address | IPv6Address | tuple[str, int] | tuple[str, int, int, int]"
"""A peer: text (`unix:`, with or without a path, for a Unix socket), 4 or 16 packed bytes, an integer with its version,
an `ipaddress` object, or the tuple that `socket.getpeername` gives, of which the host counts."""

ALLOWED: Final = (
    "it takes text, 4 or 16 packed bytes, an integer with its version, an ipaddress object or a socket's tuple"
)


def parse_address(address: Address, version: Literal[4, 6] | None = None) -> tuple[Literal[0, 4, 6], int]:
    """The version and the value of an address: IPv4 for an IPv4-mapped one, version 0 for a Unix peer.

    Raises:
        InvalidAddress: If it is not an address.
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
        raise InvalidAddress("a version goes with an integer and nothing else", option="address", value=address)
    if isinstance(address, tuple):
        return _from_tuple(address)
    packed: object = address if isinstance(address, bytes) else getattr(address, "packed", None)
    if not isinstance(packed, bytes) or len(packed) not in (4, 16):
        raise InvalidAddress(ALLOWED, option="address", value=address)
    value = int.from_bytes(packed)
    return (4, value) if len(packed) == 4 else _unmap(value)


def not_an_address(text: str) -> InvalidAddress:
    """The error for a text that is not an address."""
    reason, hint = why_no_peer(text)
    return InvalidAddress(reason, option="address", value=text, hint=hint)


def _from_tuple(given: tuple[object, ...]) -> tuple[Literal[0, 4, 6], int]:
    host = given[0] if len(given) in (2, 4) else None
    if not isinstance(host, str) or host.startswith("unix:"):
        reason = "a socket's tuple has a host and a port, and for IPv6 flow information and a scope id as well"
        raise InvalidAddress(reason, option="address", value=given)
    return parse_address(host)


def _from_int(value: int, version: int | None) -> tuple[Literal[4, 6], int]:
    bits = {4: 32, 6: 128}.get(version or 0)
    if bits is None:
        raise InvalidAddress("an integer needs its version with it, 4 or 6", option="version", value=version)
    if not 0 <= value < 1 << bits:
        reason = f"an IPv{version} address as an integer is 0 to 2**{bits} - 1"
        raise InvalidAddress(reason, option="address", value=value)
    return (4, value) if bits == 32 else _unmap(value)


def _unmap(value: int) -> tuple[Literal[4, 6], int]:
    return (4, value & 0xFFFFFFFF) if value >> 32 == 0xFFFF else (6, value)
