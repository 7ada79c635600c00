"""CRC-32C (Castagnoli), as RFC 4960 appendix B computes it for the checksum of PP 2.2.3.

It takes sixteen bytes a step through sixteen tables of 256 numbers, which is a quarter faster than four a step. Two
tables of 65,536 numbers would be as fast, and would stop an event loop for ten milliseconds when the first checksum
arrives.
"""

from __future__ import annotations

import struct
from typing import Final

_POLYNOMIAL: Final = 0x82F63B78  # bits reversed
_ALL_ONES: Final = 0xFFFFFFFF
_STEP_BYTES: Final = 16


def _one_byte_on(crc: int) -> int:
    """The register after eight zero bits."""
    for _ in range(8):
        crc = crc >> 1 ^ (_POLYNOMIAL if crc & 1 else 0)
    return crc


def _tables() -> tuple[list[int], ...]:
    """For each byte of a step, in order: what it leaves in the register at the end of the step."""
    last = [_one_byte_on(byte) for byte in range(256)]
    tables = [last]
    for _ in range(_STEP_BYTES - 1):
        tables.insert(0, [last[crc & 0xFF] ^ crc >> 8 for crc in tables[0]])
    return tuple(tables)


_TABLES: Final = _tables()
_steps: Final = struct.Struct("<I12B").iter_unpack


def crc32c(data: bytes, before: int = 0) -> int:
    """The checksum of data, as a 32-bit number; it travels in network byte order (PP 2.2.3).

    Args:
        data: At least four bytes.
        before: The checksum of the bytes before them.

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    t0, t1, t2, t3, t4, t5, t6, t7, t8, t9, t10, t11, t12, t13, t14, t15 = _TABLES
    # The register acts on the next four bytes, and leading zeros leave an empty register as it is.
    padding = -len(data) % _STEP_BYTES
    padded = (int.from_bytes(data, "little") ^ before ^ _ALL_ONES) << 8 * padding
    crc = 0
    for word, b4, b5, b6, b7, b8, b9, b10, b11, b12, b13, b14, b15 in _steps(
        padded.to_bytes(len(data) + padding, "little")
    ):
        b0, b1, b2, b3 = (crc ^ word).to_bytes(4, "little")
        crc = t0[b0] ^ t1[b1] ^ t2[b2] ^ t3[b3] ^ t4[b4] ^ t5[b5] ^ t6[b6] ^ t7[b7]
        crc ^= t8[b8] ^ t9[b9] ^ t10[b10] ^ t11[b11] ^ t12[b12] ^ t13[b13] ^ t14[b14] ^ t15[b15]
    return crc ^ _ALL_ONES
