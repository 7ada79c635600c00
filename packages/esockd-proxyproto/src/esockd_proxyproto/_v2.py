"""Reading version 2, the binary header (PP 2.2)."""

from __future__ import annotations

import struct
from socket import AF_INET6, inet_ntop
from typing import Final, NamedTuple

from ._crc32c import crc32c
from ._endpoint import UNIX_PATH_BYTES, Endpoint, UnixEndpoint
from ._errors import IncompleteHeader, InvalidHeader, NotProxyHeader
from ._header import Command, Family, ProxyHeader, Transport, new_record
from ._options import Options, Tolerance
from ._tlv import CRC32C_BYTES, TLV_HEADER, UNIQUE_ID_LIMIT_BYTES, TlvType, TlvWalk, split

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
FIXED: Final = struct.Struct("!12sHH")

ADDRESS_BYTES: Final[dict[int, int]] = {
    Family.UNSPEC: 0,
    Family.INET: 12,
    Family.INET6: 36,
    Family.UNIX: 2 * UNIX_PATH_BYTES,
}


def _unpadded(block: bytes) -> bytes:
    """A path ends at its first zero; a name in the abstract namespace starts with one and loses only trailing ones."""
    return block.rstrip(b"\0") if block[0] == 0 else block.partition(b"\0")[0]


# The six combinations of PROXY with addresses, by the first 14 bytes: family, transport, offset after the addresses,
# and what reads the length and the addresses at once.
_KIND_BYTES: Final = 14
_KINDS: Final = {
    SIGNATURE + bytes((0x21, family << 4 | transport)): (
        family,
        transport,
        FIXED.size + ADDRESS_BYTES[family],
        struct.Struct(f"!{_KIND_BYTES}xH{addresses}").unpack_from,
    )
    for family, addresses in (
        (Family.INET, "8BHH"),
        (Family.INET6, "16s16sHH"),
        (Family.UNIX, f"{UNIX_PATH_BYTES}s{UNIX_PATH_BYTES}s"),
    )
    for transport in (Transport.STREAM, Transport.DGRAM)
}
_OCTETS: Final = tuple(map(str, range(256)))  # joined, they make an IPv4 address in less than half of inet_ntop's time
_CRC32C_OF_SIGNATURE: Final = crc32c(SIGNATURE)
_PROXY, _INET, _INET6 = Command.PROXY, Family.INET, Family.INET6
_FIXED_BYTES: Final = FIXED.size
_TLV_HEADER_BYTES: Final = TLV_HEADER.size
_unpack_tlv: Final = TLV_HEADER.unpack_from
_CRC32C: Final = int(TlvType.CRC32C)
_SPECIAL_TYPES: Final = frozenset({_CRC32C, int(TlvType.UNIQUE_ID)})


def decode_v2(data: bytes, max_length: int, verify_checksum: bool, tolerate: Tolerance) -> tuple[ProxyHeader, int]:
    """Read the header that data starts with.

    This is the direct way, for a whole and sound header with addresses; `read_fixed` and `TlvWalk` explain the rest.

    Raises:
        IncompleteHeader: If a valid header may still come of it.
        InvalidHeader: If no valid header can.
    """
    kind = _KINDS.get(data[:_KIND_BYTES])
    if kind is None:
        return _decode_otherwise(data, Options(max_length, verify_checksum, tolerate))
    family, transport, first, unpack = kind
    available = len(data)
    if available < first:
        return _decode_otherwise(data, Options(max_length, verify_checksum, tolerate))
    source: Endpoint | UnixEndpoint
    destination: Endpoint | UnixEndpoint
    if family is _INET:
        length, a, b, c, d, e, f, g, h, source_port, destination_port = unpack(data)
        source = new_record(Endpoint, (f"{_OCTETS[a]}.{_OCTETS[b]}.{_OCTETS[c]}.{_OCTETS[d]}", source_port))
        destination = new_record(Endpoint, (f"{_OCTETS[e]}.{_OCTETS[f]}.{_OCTETS[g]}.{_OCTETS[h]}", destination_port))
    elif family is _INET6:
        length, source_host, destination_host, source_port, destination_port = unpack(data)
        source = new_record(Endpoint, (inet_ntop(AF_INET6, source_host), source_port))
        destination = new_record(Endpoint, (inet_ntop(AF_INET6, destination_host), destination_port))
    else:
        length, source_path, destination_path = unpack(data)
        source, destination = UnixEndpoint(_unpadded(source_path)), UnixEndpoint(_unpadded(destination_path))
    total = _FIXED_BYTES + length
    if available < total or length > max_length:
        return _decode_otherwise(data, Options(max_length, verify_checksum, tolerate))

    at, last = first, total - _TLV_HEADER_BYTES
    checksum_at = 0
    sound = True
    while at <= last:
        type_, size = _unpack_tlv(data, at)
        if type_ in _SPECIAL_TYPES:
            if type_ == _CRC32C:
                sound = sound and size == CRC32C_BYTES and not checksum_at
                checksum_at = at + _TLV_HEADER_BYTES
            else:
                sound = sound and size <= UNIQUE_ID_LIMIT_BYTES
        at += _TLV_HEADER_BYTES + size
    if at != total or not sound:
        options = Options(max_length, verify_checksum, tolerate)
        read_fixed(data, options).walk(options).advance(data, total)
    if checksum_at and verify_checksum:
        verify(data[:total], checksum_at)
    return new_record(ProxyHeader, (2, _PROXY, family, transport, source, destination, data[first:at])), total


class Fixed(NamedTuple):
    """What is known of the fixed part, whole or not.

    Attributes:
        command: As sent.
        family: As sent; UNSPEC for LOCAL, whose family is ignored.
        transport: As sent; UNSPEC for LOCAL.
        has_addresses: Whether addresses follow; if not, the block is skipped.
        start: Offset where TLVs begin.
        total: Length of the whole header in bytes, or the least it can be while the fixed part is not whole.
    """

    command: Command = Command.PROXY
    family: Family = Family.UNSPEC
    transport: Transport = Transport.UNSPEC
    has_addresses: bool = False
    start: int = FIXED.size
    total: int = FIXED.size

    def walk(self, options: Options) -> TlvWalk:
        """A walk over the TLVs that have to be sound."""
        return TlvWalk(
            self.start if self.has_addresses else self.total,
            self.total,
            long_unique_id=Tolerance.LONG_UNIQUE_ID in options.tolerate,
            remainder=Tolerance.TLV_REMAINDER in options.tolerate,
        )


def read_fixed(data: bytes | bytearray, options: Options) -> Fixed:
    """Read as much of the fixed part as has arrived.

    Raises:
        InvalidHeader: If it is wrong, whatever follows.
    """
    available = len(data)
    if not data.startswith(SIGNATURE[:available]):
        offset = next(i for i, expected in enumerate(SIGNATURE) if data[i] != expected)
        raise NotProxyHeader("the bytes start with neither 'PROXY ' nor the signature of version 2", offset, "PP 2.2")
    if available < 13:
        return Fixed()
    version, command = data[12] >> 4, data[12] & 15
    if version != 2:
        raise InvalidHeader(f"version {version} after the signature of version 2", 12, "PP 2.2")
    if command > Command.PROXY:
        raise InvalidHeader(f"command {command}; only 0 (LOCAL) and 1 (PROXY) are assigned", 12, "PP 2.2")
    if available < 14:
        return Fixed(Command(command))
    fixed = _read_kind(Command(command), data[13])
    if available < 15:
        return fixed
    length = data[14] << 8 | (data[15] if available > 15 else 0)
    if length > options.max_length:
        raise InvalidHeader(f"{length} bytes announced; the limit is {options.max_length}", 14, "PP 2.2")
    total = FIXED.size + length
    if fixed.has_addresses and total < fixed.start and available > 15:
        raise InvalidHeader(
            f"{length} bytes announced; addresses of family {fixed.family.name} take {fixed.start - FIXED.size}",
            14,
            "PP 2.2",
        )
    return fixed._replace(total=max(total, fixed.total))


def _read_kind(command: Command, family_transport: int) -> Fixed:
    family, transport = family_transport >> 4, family_transport & 15
    if command is Command.LOCAL:
        address_bytes = ADDRESS_BYTES.get(family, 0)
        return Fixed(command, start=FIXED.size + address_bytes)
    if family > Family.UNIX:
        raise InvalidHeader(f"address family {family}; 0 to 3 are specified", 13, "PP 2.2")
    if transport > Transport.DGRAM:
        raise InvalidHeader(f"transport protocol {transport}; 0 to 2 are specified", 13, "PP 2.2")
    start = FIXED.size + ADDRESS_BYTES[family]
    has_addresses = bool(family and transport)
    total = start if has_addresses else FIXED.size
    return Fixed(command, Family(family), Transport(transport), has_addresses, start, total)


def _decode_otherwise(data: bytes, options: Options) -> tuple[ProxyHeader, int]:
    """Read a header that has no addresses, is not whole, or is not sound.

    The block of LOCAL and of unspecified headers is skipped, but sound TLVs in it are kept.
    """
    fixed = read_fixed(data, options)
    command, family, transport, _, start, total = fixed
    if len(data) < total:
        fixed.walk(options).advance(data, len(data))
        raise IncompleteHeader(total - len(data))
    header = data[:total]
    for at in (start, FIXED.size):
        tlvs = split(header, at)
        checksums = [i for i, tlv in enumerate(tlvs or ()) if tlv.type == TlvType.CRC32C]
        if tlvs is None or len(checksums) > 1 or any(len(tlvs[i].value) != CRC32C_BYTES for i in checksums):
            continue
        if checksums and options.verify_checksum:
            before = sum(TLV_HEADER.size + len(tlv.value) for tlv in tlvs[: checksums[0]])
            verify(header, at + before + TLV_HEADER.size)
        break
    else:
        tlvs = ()
    return ProxyHeader(2, command, family, transport, None, None, tlvs), total


def verify(header: bytes, checksum_at: int) -> None:
    """Compare the checksum of a whole header with the one it carries (PP 2.2.3).

    Raises:
        InvalidHeader: If they differ.
    """
    behind = checksum_at + CRC32C_BYTES
    claimed = int.from_bytes(header[checksum_at:behind], "big")
    rest = header[len(SIGNATURE) : checksum_at] + bytes(CRC32C_BYTES) + header[behind:]
    actual = crc32c(rest, _CRC32C_OF_SIGNATURE)
    if claimed != actual:
        raise InvalidHeader(f"the CRC32C says {claimed:#010x}, the bytes have {actual:#010x}", checksum_at, "PP 2.2.3")
