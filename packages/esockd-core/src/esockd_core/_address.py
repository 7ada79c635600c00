"""The one grammar of addresses, shared by Python, the command line and configuration files."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, TypeAlias, cast

from esockd_core._checks import did_you_mean
from esockd_core._errors import InvalidAddress

Kind: TypeAlias = Literal["loopback", "everywhere", "host", "unix", "systemd", "fd", "socket"]
Transport: TypeAlias = Literal["tcp", "tls", "udp", "dtls", "unix"]
AddressLike: TypeAlias = "Address | str | int | tuple[str, int] | Path | socket.socket"

SCHEMES: Final = ("tcp", "tls", "udp", "dtls")
SCHEME: Final = re.compile(r"([^:/\[\]]*)://")
MAX_UNIX_PATH_BYTES: Final = 107  # sun_path holds 108 with the closing NUL (unix(7))
HOST_NAME: Final = re.compile(r"(?!-)[^\W_][\w-]{0,62}(?:\.[\w-]{1,63})*\.?|_[\w-]{1,62}(?:\.[\w-]{1,63})*\.?")
# What getaddrinfo(3) would take for an IPv4 address, shortened and hexadecimal forms too.
NUMERIC_HOST: Final = re.compile(r"(?:.*\.)?(?:\d+|0[xX][0-9A-Fa-f]*)\.?")
SYSTEMD_NAME: Final = re.compile(r"[\x21-\x39\x3b-\x7e]{1,255}")  # printable, no colon (FileDescriptorName=)
ADDRESS_FORMS: Final = (
    'Write 5000, "*:5000", "host:5000", "[::1]:5000", "unix:/path", "systemd:NAME" or "fd:3", '
    'each after "tls://", "udp://" or "dtls://" if wanted.'
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a listener listens. Made by `parse_address`. Equal addresses have equal text and equal hashes.

    Attributes:
        kind: What to open: `loopback` (127.0.0.1 and ::1), `everywhere` (every IPv4 and IPv6 address), `host`
            (one address, or all that a name resolves to), `unix`, or something inherited: `systemd`, `fd`, `socket`.
        transport: The protocol: `tcp`, `tls`, `udp`, `dtls`, or `unix` for a plain Unix stream. An inherited
            plain stream is `tcp`, whatever its family.
        host: The host of kind `host`, IPv6 without brackets; otherwise None.
        port: 0 to 65535 for `loopback`, `everywhere` and `host`, where 0 lets the kernel choose; otherwise None.
        path: The path of kind `unix`, "@name" in the abstract namespace; otherwise None.
        name: The name of kind `systemd` (sd_listen_fds_with_names(3)); otherwise None.
        fd: The descriptor of kind `fd`; otherwise None.
        socket: The caller's socket of kind `socket`, compared by identity; otherwise None.
    """

    kind: Kind
    transport: Transport = "tcp"
    host: str | None = None
    port: int | None = None
    path: str | None = None
    name: str | None = None
    fd: int | None = None
    socket: socket.socket | None = None

    @property
    def is_datagram(self) -> bool:
        """Whether it is for datagrams, by UDP or DTLS."""
        return self.transport in ("udp", "dtls")

    @property
    def is_encrypted(self) -> bool:
        """Whether it is for TLS or DTLS."""
        return self.transport in ("tls", "dtls")

    def encrypted(self) -> Address:
        """The same address with TLS for streams and DTLS for datagrams."""
        return replace(self, transport="dtls" if self.is_datagram else "tls")

    def __str__(self) -> str:
        """The canonical text, which `parse_address` reads back. For a socket it is the address that it is bound to."""
        scheme = "" if self.transport in ("tcp", "unix") else f"{self.transport}://"
        return scheme + self._place()

    def _place(self) -> str:
        match self.kind:
            case "loopback":
                return str(self.port)
            case "everywhere" | "host":
                return format_host_port(self.host or "*", self.port or 0)
            case "socket":
                return describe_socket(cast("socket.socket", self.socket))
        return f"{self.kind}:{self.fd if self.kind == 'fd' else self.path or self.name}"


def parse_address(value: object) -> Address:
    """Read an address of any form.

    Args:
        value: An `Address`, which is returned as it is; a port number or its text (loopback only, IPv4 and IPv6);
            `*:5000` (everywhere); "host:5000", "192.0.2.1:5000", "[::1]:5000", "[fe80::1%eth0]:5000" or a pair
            (host, port); "unix:/path", "unix:@abstract" or a `Path`; "systemd:NAME"; "fd:3"; or a bound socket.
            "tls://", "udp://", "dtls://" or "tcp://" may precede any of these texts.

    Raises:
        InvalidAddress: If it is none of these.
    """
    match value:
        case Address():
            return value
        case bool():
            pass
        case int():
            return Address("loopback", port=_port(str(value), value))
        case str():
            return _parse_text(value)
        case (str() as host, int() as port) if not isinstance(port, bool):
            return _host_address("tcp", host.removeprefix("[").removesuffix("]"), _port(str(port), value), value)
        case Path():
            path = str(value)
            return _unix_address("unix", f"./{path}" if path.startswith("@") else path, value)
        case socket.socket():
            return _socket_address(value)
    raise _bad(value, "it takes a port, a text, a pair (host, port), a Path or a bound socket", ADDRESS_FORMS)


def format_host_port(host: str, port: int) -> str:
    """Join host and port as text, an IPv6 address in brackets (RFC 3986 section 3.2.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_ip_address(host: str) -> bool:
    """Whether the host is an IPv4 address, or an IPv6 address with or without its interface, and not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def describe_socket(sock: socket.socket) -> str:
    """The address that a socket is bound to, as text that `parse_address` reads."""
    try:
        sockname: object = sock.getsockname()
    except OSError:
        return "a closed socket"
    match sockname:
        case (str() as host, int() as port, *_):
            return format_host_port(host, port)
        case bytes() if sockname:
            return "unix:@" + os.fsdecode(sockname[1:])
        case str() if sockname:
            return f"unix:{sockname}"
    return f"an unnamed socket (fd {sock.fileno()})"


def _parse_text(text: str) -> Address:
    match = SCHEME.match(text)
    if match is None or match[1] == "unix":
        return _parse_place("tcp", text, text)
    scheme, place = match[1], text[match.end() :]
    if scheme not in SCHEMES:
        hint = did_you_mean(scheme.lower(), SCHEMES, f"{{}}://{place}", cutoff=0.5)
        raise _bad(text, f'the scheme "{scheme}" is unknown: it is tcp, tls, udp or dtls', hint)
    return _parse_place(cast("Transport", scheme), place, text)


def _parse_place(transport: Transport, place: str, text: str) -> Address:
    if place.isdecimal():
        return Address("loopback", transport, port=_port(place, text))
    kind, _, rest = place.partition(":")
    match kind:
        case "unix":
            if rest.startswith("//") and not rest.startswith("///"):
                raise _bad(text, "after unix:// comes an absolute path", f'Write "unix:{rest[2:]}" for a relative one.')
            return _unix_address("unix" if transport == "tcp" else transport, rest, text)
        case "systemd":
            if not SYSTEMD_NAME.fullmatch(rest):
                raise _bad(text, "after systemd: comes the FileDescriptorName of the .socket unit")
            return Address("systemd", transport, name=rest)
        case "fd":
            if not (rest.isascii() and rest.isdecimal() and len(rest) < 10):
                raise _bad(text, "after fd: comes the number of an open file descriptor")
            return Address("fd", transport, fd=int(rest))
    if kind in SCHEMES:
        raise _bad(text, f'after "{kind}" comes "://"', f'Did you mean "{kind}://{rest}"?')
    host, port = _split(place, text)
    return _host_address(transport, host, _port(port, text), text)


def _split(place: str, text: str) -> tuple[str, str]:
    """Host and port of a text, the brackets of an IPv6 address taken off."""
    if place.startswith("["):
        host, bracket, port = place[1:].partition("]")
        if not bracket:
            raise _bad(text, "the bracket is not closed", 'Write "[::1]:5000".')
        if ":" not in host:
            raise _bad(text, "brackets are for IPv6 addresses only")
        if not port.startswith(":"):
            raise _bad(text, "the port is missing", f'Write "[{host}]:5000".')
        return host, port[1:]
    host, colon, port = place.rpartition(":")
    if not colon:
        if place[:1].isdigit() and "." not in place:
            raise _bad(text, "a port is a number from 0 to 65535")
        is_host = HOST_NAME.fullmatch(place) is not None
        raise _bad(text, "the port is missing", f'Write "{place}:5000".' if is_host else ADDRESS_FORMS)
    if ":" in host:
        meant = f"[{host}]:{port}" if is_ip_address(host) else f"[{place}]:5000"
        raise _bad(text, "an IPv6 address needs brackets", f'Did you mean "{meant}"?')
    return host, port


def _port(port: str, given: object) -> int:
    if port.isascii() and port.isdecimal() and len(port) <= 5 and int(port) <= 65535:
        return int(port)
    if port.isascii() and port.removeprefix("-").isdecimal():
        raise _bad(given, f"port {port} is out of range: 0 to 65535")
    raise _bad(given, f'port "{port}" is not a number from 0 to 65535', "Names of services are not looked up.")


def _host_address(transport: Transport, host: str, port: int, given: object) -> Address:
    if host == "*":
        return Address("everywhere", transport, port=port)
    if not host:
        raise _bad(given, "the host is empty", f'Write "*:{port}" to listen everywhere, or {port} for loopback only.')
    if ":" in host:
        return Address("host", transport, host=_ipv6(host, given), port=port)
    if NUMERIC_HOST.fullmatch(host):
        try:
            host = str(ipaddress.IPv4Address(host))
        except ValueError as error:
            raise _bad(given, f'"{host}" is not an IPv4 address: four numbers from 0 to 255') from error
    elif not HOST_NAME.fullmatch(host) or len(host) > 253:
        raise _bad(given, f'"{host}" is neither a host name nor an IP address')
    return Address("host", transport, host=host.lower(), port=port)


def _ipv6(host: str, given: object) -> str:
    try:
        address = ipaddress.IPv6Address(host)
    except ValueError as error:
        raise _bad(given, f'"{host}" is not an IPv6 address') from error
    if address.scope_id is not None and not re.fullmatch(r"[\w.@-]{1,15}", address.scope_id):
        raise _bad(given, f'"{address.scope_id}" is not the name or number of a network interface')
    return str(address.ipv4_mapped or address)


def _unix_address(transport: Transport, path: str, given: object) -> Address:
    if transport in ("udp", "dtls"):
        raise _bad(given, "Unix sockets are served as streams only", f'Write "unix:{path}" or "tls://unix:{path}".')
    if path in ("", "@"):
        raise _bad(given, "the path is empty", "Write unix:/path, or unix:@name in the abstract namespace.")
    try:
        length = len(path.encode(errors="surrogateescape"))
    except UnicodeEncodeError as error:
        raise _bad(given, "the path holds characters that no file name can hold") from error
    if "\0" in path:
        raise _bad(given, "the path holds a NUL", "Write unix:@name for the abstract namespace.")
    if length > MAX_UNIX_PATH_BYTES:
        raise _bad(given, f"the path has {length} bytes; a Unix socket's has at most {MAX_UNIX_PATH_BYTES} (unix(7))")
    return Address("unix", transport, path=re.sub("^//+", "/", path))


def _socket_address(sock: socket.socket) -> Address:
    if sock.fileno() < 0:
        raise _bad(sock, "the socket is closed")
    return Address("socket", "udp" if sock.type == socket.SOCK_DGRAM else "tcp", socket=sock)


def _bad(given: object, reason: str, hint: str | None = None) -> InvalidAddress:
    return InvalidAddress(reason, option="address", value=given, hint=hint)
