"""How strictly and how much a receiver reads."""

from __future__ import annotations

from enum import Flag, auto
from typing import Final, NamedTuple

SMALLEST_LIMIT_BYTES: Final = 216  # two Unix addresses, the largest block of addresses (PP 2.2)
LARGEST_LIMIT_BYTES: Final = 65_535  # what the length field can say
DEFAULT_LIMIT_BYTES: Final = 4096


class Tolerance(Flag):
    """What some senders do wrong and a receiver may choose to put up with. All are off by default."""

    NONE = 0
    LF_LINE_END = auto()
    """Version 1: a line that ends with LF alone."""
    EXTRA_BLANKS = auto()
    """Version 1: more than one blank between fields, or blanks before the line's end."""
    LEADING_ZEROS = auto()
    """Version 1: zeros in front of the numbers of IPv4 addresses and ports; they are read as decimal."""
    MIXED_FAMILIES = auto()
    """Version 1: IPv6 addresses under TCP4 and IPv4 addresses under TCP6. The family is the source address' own."""
    LONG_UNIQUE_ID = auto()
    """Version 2: a UNIQUE_ID of more than 128 bytes."""
    TLV_REMAINDER = auto()
    """Version 2: one or two bytes behind the last TLV."""


class Options(NamedTuple):
    """The keyword arguments of `decode` and `Decoder`, checked.

    Attributes:
        max_length: Most bytes behind version 2's fixed part of 16.
        verify_checksum: Whether a CRC32C that is present has to be right.
        tolerate: What is put up with.
    """

    max_length: int
    verify_checksum: bool
    tolerate: Tolerance


def check_max_length(max_length: int) -> None:
    """Refuse a limit that would forbid some plain addresses, or that no header can reach.

    Raises:
        ValueError: The limit is out of range.
    """
    if not SMALLEST_LIMIT_BYTES <= max_length <= LARGEST_LIMIT_BYTES:
        raise ValueError(
            f"max_length is {max_length} bytes; allowed are {SMALLEST_LIMIT_BYTES} (two Unix addresses)"
            f" to {LARGEST_LIMIT_BYTES} (all that the length field can say)"
        )
