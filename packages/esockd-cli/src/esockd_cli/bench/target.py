"""Where the load goes: an address that is looked up first, and is of this machine unless told otherwise."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from esockd_cli._errors import CommandError, ExitCode, UsageError, bad_value
from esockd_core import InvalidAddress, parse_address

if TYPE_CHECKING:
    from esockd_cli.bench.plan import Transport
    from esockd_core import Address


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect.

    Attributes:
        transport: How it speaks.
        hosts: The addresses that its name has, in the order of the resolver; the path of a Unix socket.
        port: The port; 0 for a Unix socket.
        server_name: What TLS asks for.
        text: As it was named.
    """

    transport: Transport
    hosts: tuple[str, ...]
    port: int
    server_name: str
    text: str


def find_target(text: str, *, may_be_remote: bool) -> Target:
    """Look up where the load is to go.

    Args:
        text: Such as "5000", "tls://localhost:5000" or "unix:/run/echo.sock".
        may_be_remote: Whether it may be another machine.

    Raises:
        UsageError: It is not an address, or one of another machine without leave.
        CommandError: It cannot be looked up.
    """
    try:
        address = parse_address(text)
    except InvalidAddress as error:
        raise bad_value(error, f'bad address "{text}"', code="bad_address") from error
    transport: Transport = address.transport
    if address.kind == "unix":
        return Target(transport, (str(address.path),), 0, "localhost", text)
    if address.kind not in ("host", "loopback") or not address.port:
        raise UsageError(f"{text} is no address to connect to.", code="bad_address", hint="Write HOST:PORT.")
    hosts = _look_up(address)
    if not may_be_remote:
        for host in hosts:
            if not is_loopback(host):
                named = "" if host == address.host else f" ({address.host} is {host})"
                raise UsageError(
                    f"{text} is not this machine{named}, and a load may harm who did not ask for it.",
                    code="remote",
                    hint="Say --yes-remote where it is yours.",
                )
    return Target(transport, hosts, address.port, address.host or "localhost", text)


def _look_up(address: Address) -> tuple[str, ...]:
    if address.kind == "loopback":
        return ("127.0.0.1", "::1")
    kind = socket.SOCK_DGRAM if address.is_datagram else socket.SOCK_STREAM
    try:
        found = socket.getaddrinfo(address.host, address.port, type=kind)
    except (OSError, UnicodeError) as error:
        raise CommandError(
            f'there is no host "{address.host}": {getattr(error, "strerror", error)}.',
            code="unknown_host",
            status=ExitCode.CANNOT_START,
        ) from error
    return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))


def is_loopback(host: str) -> bool:
    """Whether an address is one of this machine's loopback addresses, an IPv4 one in the form of IPv6 included."""
    address = ipaddress.ip_address(host)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def choose_host(target: Target, timeout: float) -> str:
    """The first of its addresses that lets somebody connect; the first of all where that cannot be tried."""
    if target.port and target.transport in ("tcp", "tls"):
        for host in target.hosts:
            try:
                with socket.create_connection((host, target.port), timeout=timeout):
                    return host
            except OSError:
                continue
    return target.hosts[0]
