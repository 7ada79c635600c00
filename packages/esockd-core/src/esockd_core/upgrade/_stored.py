"""Sockets that the service manager keeps while one program ends and the next one starts (FDSTORE of sd_notify(3))."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote

from esockd_core._address import parse_address
from esockd_core._sockets.handed_over import HandedOver, close_waiting, open_addresses, receive
from esockd_core._sockets.inherited import systemd_descriptors

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX: Final = "esockd"
SAFE: Final = "/*[]"
LONGEST: Final = 255  # FDNAME of sd_pid_notify_with_fds(3)


def sockets_to_store() -> dict[str, tuple[int, ...]]:
    """The TCP and UDP sockets that this process has opened, by the name to store them under.

    The name has the address, without colons. Unix sockets are opened again by the next program, and those of a .socket
    unit come from the service manager anyway.
    """
    found: dict[str, tuple[int, ...]] = {}
    for each in open_addresses():
        if parse_address(each.asked).kind in ("loopback", "everywhere", "host"):
            for number, share in enumerate(each.shares):
                name = f"{PREFIX}.{number}.{quote(each.asked, safe=SAFE)}"
                if len(name) <= LONGEST:
                    found[name] = (*found.get(name, ()), *(sock.fileno() for sock in share))
    return found


def receive_stored_sockets(environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Keep the sockets that the service manager has stored for the listeners that will ask for their address.

    Call it before any listener is opened.

    Args:
        environ: Has LISTEN_FDS, LISTEN_PID and LISTEN_FDNAMES, if there are any.

    Returns:
        The names that they were stored under.

    Raises:
        CannotBind: If these variables contradict each other.
    """
    if environ.get("LISTEN_PID") != str(os.getpid()) or not environ.get("LISTEN_FDNAMES"):
        return ()
    by_address: dict[str, dict[int, tuple[int, ...]]] = {}
    names: list[str] = []
    for name, descriptors in systemd_descriptors(environ).items():
        prefix, _, rest = name.partition(".")
        number, _, address = rest.partition(".")
        if prefix == PREFIX and number.isdecimal() and address:
            names.append(name)
            by_address.setdefault(unquote(address), {})[int(number)] = tuple(sorted(descriptors, key=_order))
    receive(
        HandedOver(address, tuple(shares[number] for number in sorted(shares)))
        for address, shares in by_address.items()
    )
    return tuple(names)


def _order(descriptor: int) -> tuple[int, str]:
    """IPv4 before IPv6, as they are opened; the service manager keeps no order."""
    with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as sock:
        return int(sock.family), str(sock.getsockname())
    return 0, ""


def close_unclaimed_sockets() -> None:
    """Close the sockets that no listener has asked for, when all are open."""
    close_waiting()
