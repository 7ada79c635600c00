"""Socket addresses as names for programs and logs, and bytes as they are handed over."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from esockd_core._address import format_host_port
from esockd_proxyproto import UnixEndpoint

if TYPE_CHECKING:
    from esockd_core._options.listener import PeerName
    from esockd_proxyproto import Endpoint


def name_of(address: Any) -> PeerName:
    """A socket address as (host, port), an IPv4-mapped one as IPv4; a Unix path as text, "" for none."""
    if isinstance(address, tuple):
        if len(address) == 2:
            return address
        return unmapped(address[0]), address[1]
    return printable(address if isinstance(address, bytes) else os.fsencode(address or ""))


def name_of_endpoint(endpoint: Endpoint | UnixEndpoint) -> PeerName:
    """The client that a PROXY header names, in the form of a socket's peer."""
    if isinstance(endpoint, UnixEndpoint):
        return printable(endpoint.path)
    return unmapped(endpoint.host), endpoint.port


def unmapped(host: str) -> str:
    """An IPv4-mapped IPv6 address (RFC 4291 section 2.5.5.2) as the IPv4 address that it stands for."""
    return host[7:] if host.startswith("::ffff:") and "." in host else host


def host_of(peer: PeerName | None) -> str:
    """The host that rules and limits judge: the address of a peer, or one name for all Unix clients."""
    return peer[0] if isinstance(peer, tuple) else "unix:"


def is_abstract(name: PeerName) -> bool:
    """Whether a Unix socket has a name without a file. AnyIO's attributes give it as bytes, as the kernel does."""
    return isinstance(name, str) and name.startswith("@")


def printable(path: bytes) -> str:
    """A Unix path as text for names and logs: "@" for the NUL of an abstract one, escapes for what is not text."""
    text = path.decode(errors="backslashreplace").replace("\0", "@")
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


def as_bytes(data: object) -> bytes:
    """Bytes as they are, or a copy of a bytearray, memoryview or array that its owner may change later."""
    return data if isinstance(data, bytes) else bytes(memoryview(data))  # type: ignore[arg-type] # it says so itself


def text_of_name(name: PeerName) -> str:
    """A name as a log shows it: `192.0.2.7:41000`, `[2001:db8::1]:41000`, or the path of a Unix client."""
    if isinstance(name, str):
        return repr(name) if name else "a Unix client"
    return format_host_port(*name)
