"""Which of a machine's addresses a datagram came to, at a socket bound to all of them, and replies from there."""

from __future__ import annotations

import socket
import struct
import sys
from typing import Final, TypeAlias

Ancillary: TypeAlias = list[tuple[int, int, bytes]]

# ip(7): struct in_pktinfo is interface, local address, destination. RFC 3542: struct in6_pktinfo is destination and
# interface. The socket module of older Pythons lacks the first of these numbers.
IP_PKTINFO: Final = 8
IPV6_RECVPKTINFO: Final = 49
IPV6_PKTINFO: Final = 50
IPV6_MULTICAST: Final = 0xFF  # its first byte (RFC 4291 section 2.7)
IN_PKTINFO: Final = struct.Struct("=i4s4s")
IN6_PKTINFO: Final = struct.Struct("=16sI")
ANCILLARY_BYTES: Final = socket.CMSG_SPACE(IN6_PKTINFO.size)
HAS_PACKET_INFO: Final = sys.platform == "linux"  # others have options and structures of their own


def is_wildcard(sock: socket.socket) -> bool:
    """Whether a socket is bound to all addresses of its family."""
    return sock.getsockname()[0] in ("0.0.0.0", "::")  # noqa: S104 (what it is compared with)


def ask_for_local_address(sock: socket.socket) -> bool:
    """Have the kernel tell with each datagram to which address it came.

    Returns:
        Whether it will. If not, replies leave from the address that the routing table chooses.
    """
    if not HAS_PACKET_INFO:
        return False
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    return True


def local_address_of(ancillary: Ancillary) -> bytes:
    """The local address that a datagram came to, packed; empty if the kernel did not tell, or told an IPv6 group."""
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IP and kind == IP_PKTINFO:
            return data[4:8]
        if level == socket.IPPROTO_IPV6 and kind == IPV6_PKTINFO:
            return b"" if data[0] == IPV6_MULTICAST else data[:16]  # nothing leaves from a group; IPv4 tells another
    return b""


def send_from(local: bytes) -> Ancillary:
    """The ancillary data with which a datagram leaves from this address, as `local_address_of` gives it."""
    if not local:
        return []
    if len(local) == 4:
        return [(socket.IPPROTO_IP, IP_PKTINFO, IN_PKTINFO.pack(0, local, bytes(4)))]
    return [(socket.IPPROTO_IPV6, IPV6_PKTINFO, IN6_PKTINFO.pack(local, 0))]


def text_of_local_address(local: bytes) -> str:
    """The address as text."""
    return socket.inet_ntop(socket.AF_INET if len(local) == 4 else socket.AF_INET6, local)
