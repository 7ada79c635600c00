"""Writing a header of either version."""

from __future__ import annotations

import struct
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import TYPE_CHECKING, Final

from ._crc32c import crc32c
from ._errors import UnencodableHeader
from ._header import UNIX_PATH_BYTES, Command, Endpoint, Family, ProxyHeader, Transport, UnixEndpoint
from ._options import LARGEST_LIMIT_BYTES
from ._tlv import CRC32C_BYTES, TLV_HEADER, UNIQUE_ID_LIMIT_BYTES, Tlv, TlvType, join
from ._v2 import FIXED, SIGNATURE

if TYPE_CHECKING:
    from collections.abc import Iterable

_PORTS: Final = range(65_536)
_FAMILIES: Final = frozenset(Family)
_TRANSPORTS: Final = frozenset(Transport)
_SOCKET_FAMILIES: Final = {Family.INET: AF_INET, Family.INET6: AF_INET6}


def encode(header: ProxyHeader, *, checksum: bool = False, pad_to: int = 0) -> bytes:
    r"""Write a header. Send the bytes at once, before anything else (PP 2).

    A CRC32C among the header's TLVs is computed anew, so that a received header can be changed and sent on.

    Args:
        header: What to say.
        checksum: Version 2: add a CRC32C when the header has none.
        pad_to: Version 2: fill up to this many bytes in all with a NOOP; one of 3 bytes or more, so a gap of 1 or 2
            cannot be filled.

    Returns:
        The header's bytes.

    Raises:
        UnencodableHeader: The protocol cannot say this; the message says what to change.

    Source: HAProxy's PROXY protocol specification of 2026/04/27, sections 2.1 and 2.2.

    >>> encode(ProxyHeader(1, source=Endpoint("192.0.2.1", 56324), destination=Endpoint("198.51.100.7", 443)))
    b'PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n'
    """
    if header.version == 2:
        return _encode_v2(header, checksum=checksum, pad_to=pad_to)
    if header.version != 1:
        raise UnencodableHeader(f"version is {header.version!r}; the protocol has 1 and 2")
    if checksum or pad_to or header.tlvs:
        raise UnencodableHeader("version 1 has no TLVs, checksum or padding; use version=2")
    return _encode_v1(header)


def _encode_v1(header: ProxyHeader) -> bytes:
    _, command, family, transport, source, destination, *_ = header
    if command == Command.LOCAL or (family, transport) == (Family.UNSPEC, Transport.UNSPEC):
        _refuse_addresses(header)
        return b"PROXY UNKNOWN\r\n"
    if family not in _SOCKET_FAMILIES or transport != Transport.STREAM:
        raise UnencodableHeader(
            "version 1 carries TCP over IPv4 and IPv6 alone; use version=2, or say UNKNOWN with no addresses (PP 2.1)"
        )
    source_host, source_port = _inet(source, "source", family)
    destination_host, destination_port = _inet(destination, "destination", family)
    keyword = "TCP4" if family == Family.INET else "TCP6"
    hosts = [inet_ntop(_SOCKET_FAMILIES[family], packed) for packed in (source_host, destination_host)]
    return f"PROXY {keyword} {hosts[0]} {hosts[1]} {source_port} {destination_port}\r\n".encode("ascii")


def _encode_v2(header: ProxyHeader, *, checksum: bool, pad_to: int) -> bytes:
    start = _fixed_bytes(header)
    addresses = _addresses(header)
    tlvs = _checked(header.tlvs)
    if checksum and not any(tlv.type == TlvType.CRC32C for tlv in tlvs):
        tlvs.append(Tlv(TlvType.CRC32C, bytes(CRC32C_BYTES)))
    size = FIXED.size + len(addresses) + len(join(tlvs))
    if pad_to > size:
        gap = pad_to - size - TLV_HEADER.size
        if gap < 0:
            raise UnencodableHeader(f"the header has {size} bytes: a NOOP of 3 or more cannot fill it up to {pad_to}")
        tlvs.append(Tlv(TlvType.NOOP, bytes(gap)))
    elif pad_to and pad_to < size:
        raise UnencodableHeader(f"the header has {size} bytes, more than pad_to={pad_to}")
    block = addresses + join(tlvs)
    if len(block) > LARGEST_LIMIT_BYTES:
        raise UnencodableHeader(f"{len(block)} bytes of addresses and TLVs; the length field reaches to 65535 (PP 2.2)")
    data = start + struct.pack("!H", len(block)) + block
    at = FIXED.size + len(addresses)
    for type_, value in tlvs:
        at += TLV_HEADER.size
        if type_ == TlvType.CRC32C:
            return data[:at] + struct.pack("!I", crc32c(data)) + data[at + CRC32C_BYTES :]
        at += len(value)
    return data


def _fixed_bytes(header: ProxyHeader) -> bytes:
    _, command, family, transport, *_ = header
    if command not in (Command.LOCAL, Command.PROXY):
        raise UnencodableHeader(f"command is {command!r}; the protocol has Command.LOCAL and Command.PROXY (PP 2.2)")
    if family not in _FAMILIES or transport not in _TRANSPORTS:
        raise UnencodableHeader(f"family {family!r} and transport {transport!r} have to be of Family and Transport")
    if command == Command.LOCAL:
        return SIGNATURE + b"\x20\x00"
    if (family == Family.UNSPEC) != (transport == Transport.UNSPEC):
        raise UnencodableHeader(
            f"family {family!r} with transport {transport!r}: senders leave both unspecified or neither (PP 2.2)"
        )
    return SIGNATURE + bytes([0x20 | command, family << 4 | transport])


def _addresses(header: ProxyHeader) -> bytes:
    _, command, family, _, source, destination, *_ = header
    if command == Command.LOCAL or family == Family.UNSPEC:
        _refuse_addresses(header)
        return b""
    if family == Family.UNIX:
        return _unix(source, "source") + _unix(destination, "destination")
    source_host, source_port = _inet(source, "source", family)
    destination_host, destination_port = _inet(destination, "destination", family)
    return source_host + destination_host + struct.pack("!HH", source_port, destination_port)


def _refuse_addresses(header: ProxyHeader) -> None:
    if header.source is not None or header.destination is not None:
        raise UnencodableHeader("LOCAL and unspecified headers carry no addresses: leave source and destination out")


def _inet(endpoint: Endpoint | UnixEndpoint | None, name: str, family: Family) -> tuple[bytes, int]:
    if not isinstance(endpoint, tuple):
        raise UnencodableHeader(f"{name} is {endpoint!r}; family {family.name} needs an Endpoint(host, port)")
    host, port = endpoint
    try:
        packed = inet_pton(_SOCKET_FAMILIES[family], host)
    except (OSError, TypeError, ValueError):
        kind = "IPv4" if family == Family.INET else "IPv6"
        raise UnencodableHeader(
            f"{name} host {host!r} is not an {kind} address; write an IPv4 one as ::ffff:a.b.c.d to mix families"
        ) from None
    if port not in _PORTS:
        raise UnencodableHeader(f"{name} port is {port!r}; ports are 0 to 65535")
    return packed, port


def _unix(endpoint: Endpoint | UnixEndpoint | None, name: str) -> bytes:
    if not isinstance(endpoint, UnixEndpoint):
        raise UnencodableHeader(f"{name} is {endpoint!r}; family UNIX needs a UnixEndpoint(path)")
    if len(endpoint.path) > UNIX_PATH_BYTES:
        raise UnencodableHeader(f"{name} path has {len(endpoint.path)} bytes; 108 fit (PP 2.2)")
    return endpoint.path.ljust(UNIX_PATH_BYTES, b"\0")


def _checked(tlvs: Iterable[Tlv]) -> list[Tlv]:
    """The TLVs with a checksum of zeros for whatever checksum they have."""
    checked = [Tlv(TlvType.CRC32C, bytes(CRC32C_BYTES)) if tlv.type == TlvType.CRC32C else tlv for tlv in tlvs]
    if sum(tlv.type == TlvType.CRC32C for tlv in checked) > 1:
        raise UnencodableHeader("two TLVs of type CRC32C; a header has one checksum (PP 2.2.3)")
    for tlv in checked:
        if tlv.type == TlvType.UNIQUE_ID and len(tlv.value) > UNIQUE_ID_LIMIT_BYTES:
            raise UnencodableHeader(f"a UNIQUE_ID of {len(tlv.value)} bytes; at most 128 are allowed (PP 2.2.5)")
    return checked
