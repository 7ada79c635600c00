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
    if isinstance(address, int) and not isinstance(address, bool):
        return _from_int(address, version)
    if version is not None:
        raise InvalidAddress(address, "a version goes with an integer and nothing else")
    if isinstance(address, str):
        if address.startswith("unix:"):
            return 0, 0
        packed = _pack(address)
    else:
        packed = _packed_form(address)
    value = int.from_bytes(packed)
    return (4, value) if len(packed) == 4 else _unmap(value)


def _from_int(value: int, version: int | None) -> tuple[Literal[4, 6], int]:
    if version == 4 and 0 <= value < 1 << 32:
        return 4, value
    if version == 6 and 0 <= value < 1 << 128:
        return _unmap(value)
    if version in (4, 6):
        raise InvalidAddress(
            value, f"an IPv{version} address as an integer is 0 to 2**{32 if version == 4 else 128} - 1"
        )
    raise InvalidAddress(value, f"an integer needs its version, 4 or 6, beside it; got {version!r}")


def _pack(text: str) -> bytes:
    try:
        if ":" in text:
            return inet_pton(AF_INET6, text.partition("%")[0])
        return inet_pton(AF_INET, text)
    except (OSError, ValueError):
        raise InvalidAddress(text, "not an IPv4 or IPv6 address; a port, brackets or a host name are none") from None


def _packed_form(address: object) -> bytes:
    packed: object = address if isinstance(address, bytes) else getattr(address, "packed", None)
    if isinstance(packed, bytes) and len(packed) in (4, 16):
        return packed
    raise InvalidAddress(address, ALLOWED)


def _unmap(value: int) -> tuple[Literal[4, 6], int]:
    return (4, value & 0xFFFFFFFF) if value >> 32 == 0xFFFF else (6, value)
