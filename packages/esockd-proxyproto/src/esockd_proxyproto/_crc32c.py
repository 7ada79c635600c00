"""CRC-32C (Castagnoli), as RFC 4960 appendix B computes it for the checksum of PP 2.2.3.

Two bytes a step through one table of 65,536 entries. The table is 256 KiB and takes milliseconds to build, so it is
made when the first checksum is needed.
"""

from __future__ import annotations

import struct
from array import array
from functools import cache
from typing import Final

_POLYNOMIAL: Final = 0x82F63B78  # bits reversed
_ALL_ONES: Final = 0xFFFFFFFF


def crc32c(data: bytes) -> int:
    """The checksum of data as a 32-bit number; it travels in network byte order (PP 2.2.3).

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    table = _table()
    crc = _ALL_ONES
    if len(data) & 1:
        # The table of words also steps by one byte: a word whose low byte is zero moves the other through alone.
        crc = table[((crc ^ data[0]) & 0xFF) << 8] ^ crc >> 8
        data = data[1:]
    for word in struct.unpack(f"<{len(data) >> 1}H", data):
        crc = table[(crc ^ word) & 0xFFFF] ^ crc >> 16
    return crc ^ _ALL_ONES


@cache
def _table() -> array[int]:
    """What each pair of bytes, first byte low, leaves in a register of zeros."""
    last = []  # of the pair's second byte, which is moved through 8 bits
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (_POLYNOMIAL if byte & 1 else 0)  # noqa: PLW2901
        last.append(byte)
    first = [last[crc & 0xFF] ^ crc >> 8 for crc in last]  # of the first byte, through 16
    return array("I", [high ^ low for high in last for low in first])
