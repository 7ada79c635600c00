"""Socket options of TCP that not every system has, or not under the same name."""

from __future__ import annotations

import socket
from typing import Final

from esockd_core._errors import InvalidOption

# By the option of this package: the names in sys/socket.h and netinet/tcp.h, and who has it.
NAMES: Final = {
    "keepalive_idle_timeout": (("TCP_KEEPIDLE", "TCP_KEEPALIVE"), "Linux, macOS and FreeBSD have it"),  # macOS: ALIVE
    "keepalive_interval": (("TCP_KEEPINTVL",), "Linux, macOS and FreeBSD have it"),
    "keepalive_count": (("TCP_KEEPCNT",), "Linux, macOS and FreeBSD have it"),
    "user_timeout": (("TCP_USER_TIMEOUT",), "only Linux has it"),
    "defer_accept_timeout": (("TCP_DEFER_ACCEPT",), "only Linux has it"),
}


def has_tcp_option(option: str) -> bool:
    """Whether this system has an option."""
    return any(hasattr(socket, name) for name in NAMES[option][0])


def tcp_option(option: str, value: object) -> int:
    """The number of a TCP option on this system.

    Args:
        option: Its name in `TcpOptions`.
        value: The value given for it, for the message.

    Raises:
        InvalidOption: If this system does not have it.
    """
    names, owners = NAMES[option]
    for name in names:
        number: int | None = getattr(socket, name, None)
        if number is not None:
            return number
    raise InvalidOption(f"this system has no {names[0]}: {owners}", option=f"tcp.{option}", value=value)
