"""Errors that a UDP socket keeps for whoever asks for them."""

from __future__ import annotations

import socket
import sys
from typing import Final

# ip(7) and ipv6(7); the socket module of older Pythons lacks both numbers.
IP_RECVERR: Final = 11
IPV6_RECVERR: Final = 25


def queue_no_errors(sock: socket.socket) -> None:
    """Have the kernel keep no errors for a socket, whatever its opener wanted.

    As long as one waits in the queue, poll(2) tells of an error, and uvloop stops looking at the socket.
    """
    if sys.platform != "linux":
        return
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 0)
    sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 0)  # of an IPv6 socket too, for its peers of IPv4
