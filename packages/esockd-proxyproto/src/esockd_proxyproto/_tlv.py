"""Type-length-value vectors: their types and their framing (PP 2.2)."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from ._errors import InvalidHeader, UnencodableHeader

if TYPE_CHECKING:
    from collections.abc import Iterable

TLV_HEADER: Final = struct.Struct("!BH")
UNIQUE_ID_LIMIT_BYTES: Final = 128  # PP 2.2.5
CRC32C_BYTES: Final = 4  # PP 2.2.3
LENGTH_LIMIT_BYTES: Final = 65_535
_TYPES: Final = range(256)


class TlvType(IntEnum):
    """Registered types (PP 2.2), and those that clouds chose in the range for applications (PP 2.2.8)."""

    ALPN = 0x01
    AUTHORITY = 0x02
    CRC32C = 0x03
    NOOP = 0x04
    UNIQUE_ID = 0x05
    SSL = 0x20
    NETNS = 0x30
    GCP = 0xE0
    AWS = 0xEA
    AZURE = 0xEE


class SslSubtype(IntEnum):
    """Types inside the value of `TlvType.SSL` (PP 2.2.6)."""

    VERSION = 0x21
    COMMON_NAME = 0x22
    CIPHER = 0x23
    SIGNATURE_ALGORITHM = 0x24
    KEY_ALGORITHM = 0x25
    GROUP = 0x26
    SIGNATURE_SCHEME = 0x27
    CLIENT_CERTIFICATE = 0x28


class Tlv(NamedTuple):
    """One value of a version 2 header, raw.

    Attributes:
        type: 0 to 255; a `TlvType` where it is a known one.
        value: 0 to 65,535 bytes.
    """

    type: int
    value: bytes


class TlvWalk:
    """Checks the framing of TLVs as far as bytes have arrived, and goes on when more have.

    It looks at each byte once, so that a sender of one byte at a time costs no more than any other.

    Args:
        start: Offset of the first TLV.
        total: Offset after the last one, which is the whole header's length in bytes.
        long_unique_id: Accept more than 128 bytes of UNIQUE_ID.
        remainder: Accept one or two bytes after the last TLV.
    """

    def __init__(self, start: int, total: int, *, long_unique_id: bool, remainder: bool) -> None:
        self.position = start
        self.checksum_at: int | None = None
        self._total = total
        self._length_field = 14  # the field to blame when too few bytes are left: at first the header's own length
        self._long_unique_id = long_unique_id
        self._remainder = remainder

    def advance(self, data: bytes | bytearray, available: int) -> None:
        """Walk on over ``data[:available]``.

        Raises:
            InvalidHeader: If the framing is wrong, whatever may follow.
        """
        while self.position < self._total:
            at = self.position
            room = self._total - at - TLV_HEADER.size
            if room < 0:
                if not self._remainder:
                    raise InvalidHeader(
                        f"TLVs leave {room + TLV_HEADER.size} of the announced bytes over; a TLV takes 3 or more",
                        self._length_field,
                        "PP 2.2",
                    )
                self.position = self._total
                return
            if at >= available:
                return
            self._check_type(data[at], at, room)
            if at + 1 >= available:
                return
            whole = at + 2 < available
            size = data[at + 1] << 8 | (data[at + 2] if whole else 0)  # at least this many bytes
            self._check_size(data[at], at, size, room, whole=whole)
            if not whole:
                return
            if data[at] == TlvType.CRC32C:
                self.checksum_at = at + TLV_HEADER.size
            self._length_field = at + 1
            self.position = at + TLV_HEADER.size + size

    def _check_type(self, type_: int, at: int, room: int) -> None:
        if type_ != TlvType.CRC32C:
            return
        if self.checksum_at is not None:
            raise InvalidHeader("a second CRC32C; a header has one checksum", at, "PP 2.2.3")
        if room < CRC32C_BYTES or (CRC32C_BYTES < room < CRC32C_BYTES + 3 and not self._remainder):
            raise InvalidHeader(f"no room for a CRC32C of 4 bytes in the {room} left", at, "PP 2.2.3")

    def _check_size(self, type_: int, at: int, size: int, room: int, *, whole: bool) -> None:
        if size > room:
            raise InvalidHeader(f"TLV 0x{type_:02x} claims {size} bytes, {room} are left", at + 1, "PP 2.2")
        if type_ == TlvType.CRC32C and size != CRC32C_BYTES and (whole or size):
            raise InvalidHeader(f"a CRC32C of {size} bytes; it has 4", at + 1, "PP 2.2.3")
        if type_ == TlvType.UNIQUE_ID and size > UNIQUE_ID_LIMIT_BYTES and not self._long_unique_id:
            raise InvalidHeader(f"a UNIQUE_ID of {size} bytes; at most 128 are allowed", at + 1, "PP 2.2.5")


def split(data: bytes, start: int) -> tuple[Tlv, ...] | None:
    """Cut ``data[start:]`` into TLVs, or give None when they do not fill it exactly."""
    tlvs = []
    while start + TLV_HEADER.size <= len(data):
        type_, size = TLV_HEADER.unpack_from(data, start)
        start += TLV_HEADER.size
        tlvs.append(Tlv(type_, data[start : start + size]))
        start += size
    return tuple(tlvs) if start == len(data) else None


def join(tlvs: Iterable[Tlv]) -> bytes:
    """Write TLVs one after the other.

    Raises:
        UnencodableHeader: If a type is out of range, or a value is not bytes or too long.
    """
    parts = []
    for type_, value in tlvs:
        if type_ not in _TYPES:
            raise UnencodableHeader("a TLV's type is 0 to 255", option="tlvs", value=type_)
        _check_value(value)
        parts += [TLV_HEADER.pack(type_, len(value)), value]
    return b"".join(parts)


def _check_value(value: object) -> None:
    if not (isinstance(value, bytes) and len(value) <= LENGTH_LIMIT_BYTES):
        raise UnencodableHeader("a TLV's value is at most 65535 bytes", option="tlvs", value=value)
