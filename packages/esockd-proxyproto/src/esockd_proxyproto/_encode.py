"""Writing a header of either version."""

from __future__ import annotations

import struct
from socket import AF_INET, AF_INET6, inet_ntop
from typing import TYPE_CHECKING, Final

from ._crc32c import crc32c
from ._endpoint import UNIX_PATH_BYTES, Endpoint, UnixEndpoint, check_path, check_port, pack_host
from ._errors import UnencodableHeader
from ._header import Command, Family, ProxyHeader, Transport
from ._options import LARGEST_LIMIT_BYTES
from ._tlv import CRC32C_BYTES, TLV_HEADER, UNIQUE_ID_LIMIT_BYTES, Tlv, TlvType, join
from ._v2 import FIXED, SIGNATURE

if TYPE_CHECKING:
    from collections.abc import Iterable

_FAMILIES: Final = frozenset(Family)
_TRANSPORTS: Final = frozenset(Transport)
_SOCKET_FAMILIES: Final = {Family.INET: AF_INET, Family.INET6: AF_INET6}


def encode(header: ProxyHeader, *, checksum: bool = False, pad_to: int = 0) -> bytes:
    r"""Write a header. Send the bytes at once, before anything else (PP 2).

    A CRC32C among the header's TLVs is computed again, so that a received header can be changed and sent on.

    Args:
        header: What to say.
        checksum: Version 2: add a CRC32C when the header has none.
        pad_to: Version 2: fill up to this many bytes in all with a NOOP. A NOOP takes 3 bytes or more, so that it
            cannot fill a gap of 1 or 2.

    Returns:
        The header's bytes.

    Raises:
        UnencodableHeader: If the protocol cannot say this; the error says what to change.

    Source: HAProxy's PROXY protocol specification of 2026/04/27, sections 2.1 and 2.2.

    >>> encode(ProxyHeader(1, source=Endpoint("192.0.2.1", 56324), destination=Endpoint("198.51.100.7", 443)))
    b'PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n'
    """
    if header.version == 2:
        return _encode_v2(header, checksum=checksum, pad_to=pad_to)
    if header.version != 1:
        raise UnencodableHeader("it takes 1 or 2", option="version", value=header.version)
    if checksum or pad_to or header.tlvs:
        raise UnencodableHeader("version 1 has no TLVs, checksum or padding", hint="Use version=2.")
    return _encode_v1(header)


def _encode_v1(header: ProxyHeader) -> bytes:
    _, command, family, transport, source, destination, *_ = header
    if command == Command.LOCAL or (family, transport) == (Family.UNSPEC, Transport.UNSPEC):
        _refuse_addresses(header)
        return b"PROXY UNKNOWN\r\n"
    if family not in _SOCKET_FAMILIES or transport != Transport.STREAM:
        hint = "Use version=2, or say UNKNOWN by leaving the addresses out."
        raise UnencodableHeader("version 1 carries TCP over IPv4 and IPv6 alone (PP 2.1)", hint=hint)
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
            reason = f"the header has {size} bytes, and a NOOP of 3 or more cannot fill a gap of {pad_to - size}"
            raise UnencodableHeader(reason, option="pad_to", value=pad_to)
        tlvs.append(Tlv(TlvType.NOOP, bytes(gap)))
    elif pad_to and pad_to < size:
        raise UnencodableHeader(f"the header has {size} bytes already", option="pad_to", value=pad_to)
    block = addresses + join(tlvs)
    if len(block) > LARGEST_LIMIT_BYTES:
        reason = f"addresses and TLVs have {len(block)} bytes, and the length field reaches to 65535 (PP 2.2)"
        raise UnencodableHeader(reason)
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
        raise UnencodableHeader("it takes Command.LOCAL or Command.PROXY (PP 2.2)", option="command", value=command)
    if family not in _FAMILIES:
        raise UnencodableHeader("it takes a Family", option="family", value=family)
    if transport not in _TRANSPORTS:
        raise UnencodableHeader("it takes a Transport", option="transport", value=transport)
    if command == Command.LOCAL:
        return SIGNATURE + b"\x20\x00"
    if (family == Family.UNSPEC) != (transport == Transport.UNSPEC):
        reason = f"family {family.name} does not go with it: senders leave both unspecified or neither (PP 2.2)"
        raise UnencodableHeader(reason, option="transport", value=transport)
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
        hint = "Leave source and destination out."
        raise UnencodableHeader("LOCAL and unspecified headers carry no addresses", hint=hint)


def _inet(endpoint: Endpoint | UnixEndpoint | None, option: str, family: Family) -> tuple[bytes, int]:
    if not isinstance(endpoint, tuple):
        raise UnencodableHeader(f"family {family.name} needs an Endpoint(host, port)", option=option, value=endpoint)
    host, port = endpoint
    packed = pack_host(host, _SOCKET_FAMILIES[family], option)
    check_port(port, option)
    return packed, port


def _unix(endpoint: Endpoint | UnixEndpoint | None, option: str) -> bytes:
    if not isinstance(endpoint, UnixEndpoint):
        raise UnencodableHeader("family UNIX needs a UnixEndpoint(path)", option=option, value=endpoint)
    check_path(endpoint.path, option)
    return endpoint.path.ljust(UNIX_PATH_BYTES, b"\0")


def _checked(tlvs: Iterable[Tlv]) -> list[Tlv]:
    """The TLVs, with zeros in place of a checksum."""
    checked = [Tlv(TlvType.CRC32C, bytes(CRC32C_BYTES)) if tlv.type == TlvType.CRC32C else tlv for tlv in tlvs]
    if sum(tlv.type == TlvType.CRC32C for tlv in checked) > 1:
        raise UnencodableHeader("a header has one checksum, so one TLV of type CRC32C (PP 2.2.3)", option="tlvs")
    for tlv in checked:
        if tlv.type == TlvType.UNIQUE_ID and len(tlv.value) > UNIQUE_ID_LIMIT_BYTES:
            reason = f"a UNIQUE_ID has at most 128 bytes, not {len(tlv.value)} (PP 2.2.5)"
            raise UnencodableHeader(reason, option="tlvs", value=tlv)
    return checked
