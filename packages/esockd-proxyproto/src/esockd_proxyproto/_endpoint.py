"""The two ends of a connection, as a header names them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from socket import AF_INET, AF_INET6, inet_pton
from typing import Final, NamedTuple, TypeAlias

from ._errors import UnencodableHeader

UNIX_PATH_BYTES: Final = 108  # of one address of family UNIX (PP 2.2)


class Endpoint(NamedTuple):
    """An IP address and a port, usable wherever a socket takes ``(host, port)``.

    Attributes:
        host: IPv4 or IPv6 address as text, in the form of inet_ntop(3) when it was received.
        port: 0 to 65535.
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixEndpoint:
    """The address of a Unix socket.

    Attributes:
        path: The path's bytes without padding. A first byte of zero marks Linux's abstract namespace, and an empty
            path an unnamed socket. The constructor encodes text like a file name.
    """

    path: bytes

    def __init__(self, path: str | bytes | os.PathLike[str]) -> None:
        object.__setattr__(self, "path", os.fsencode(path))

    def __str__(self) -> str:
        return "unix:" + os.fsdecode(self.path).replace("\0", "@")


EndpointLike: TypeAlias = Endpoint | UnixEndpoint | tuple[str, int] | tuple[str, int, int, int]
"""An endpoint, or the tuple that a socket gives for one."""


def to_endpoint(given: object, option: str) -> Endpoint | UnixEndpoint | None:
    """The endpoint that was given as the argument `option`, or None.

    Raises:
        UnencodableHeader: If it is not an endpoint, or has a host, a port or a path that no header can carry.
    """
    if given is None:
        return None
    if isinstance(given, UnixEndpoint):
        check_path(given.path, option)
        return given
    if not isinstance(given, tuple) or len(given) not in {2, 4}:
        allowed = "it takes an Endpoint, the tuple of a socket, a UnixEndpoint or None"
        hint = 'Write Endpoint("192.0.2.1", 56324).' if isinstance(given, str) else None
        raise UnencodableHeader(allowed, option=option, value=given, hint=hint)
    host, port = given[:2]
    pack_host(host, AF_INET6 if isinstance(host, str) and ":" in host else AF_INET, option)
    check_port(port, option)
    return given if isinstance(given, Endpoint) else Endpoint(host, port)


def pack_host(host: object, family: int, option: str) -> bytes:
    """The bytes of an address.

    Raises:
        UnencodableHeader: If it is not an address of the family.
    """
    try:
        return inet_pton(family, host)  # type: ignore[arg-type]  # a host of another type is a TypeError
    except (OSError, TypeError, ValueError):
        kind = "an IPv6 address" if family == AF_INET6 else "an IPv4 address"
        is_of_the_other = isinstance(host, str) and (":" in host) != (family == AF_INET6)
        hint = (
            "To mix families, write the IPv4 one as ::ffff:a.b.c.d." if is_of_the_other else "Names are not looked up."
        )
        raise UnencodableHeader(f"it takes {kind}", option=f"{option}.host", value=host, hint=hint) from None


def check_port(port: object, option: str) -> None:
    """Refuse what is not a port.

    Raises:
        UnencodableHeader: If it is not a number from 0 to 65535.
    """
    if type(port) is bool or not isinstance(port, int) or not 0 <= port <= 65535:
        raise UnencodableHeader("it takes a whole number, 0 to 65535", option=f"{option}.port", value=port)


def check_path(path: bytes, option: str) -> None:
    """Refuse a path that is too long.

    Raises:
        UnencodableHeader: If it has more than 108 bytes.
    """
    if len(path) > UNIX_PATH_BYTES:
        reason = f"it has {len(path)} bytes, and {UNIX_PATH_BYTES} fit (PP 2.2)"
        raise UnencodableHeader(reason, option=f"{option}.path", value=path)
