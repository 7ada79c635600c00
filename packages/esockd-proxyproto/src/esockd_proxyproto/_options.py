"""How strictly a receiver reads, and how much."""

from __future__ import annotations

from enum import Flag, auto
from typing import Final, NamedTuple

from ._errors import InvalidOption

SMALLEST_LIMIT_BYTES: Final = 216  # two Unix addresses, the largest block of addresses (PP 2.2)
LARGEST_LIMIT_BYTES: Final = 65_535  # what the length field can say
DEFAULT_LIMIT_BYTES: Final = 4096


class Tolerance(Flag):
    """What some senders do wrong and a receiver may choose to tolerate. All are off by default."""

    NONE = 0
    LF_LINE_END = auto()
    """Version 1: a line that ends in LF alone."""
    EXTRA_BLANKS = auto()
    """Version 1: more than one blank between fields, or blanks before the line's end."""
    LEADING_ZEROS = auto()
    """Version 1: leading zeros in IPv4 addresses and ports, which are read as decimal."""
    MIXED_FAMILIES = auto()
    """Version 1: IPv6 addresses under TCP4 and IPv4 addresses under TCP6. The family is that of the source address."""
    LONG_UNIQUE_ID = auto()
    """Version 2: a UNIQUE_ID of more than 128 bytes."""
    TLV_REMAINDER = auto()
    """Version 2: one or two bytes after the last TLV."""


class Options(NamedTuple):
    """The keyword arguments of `decode` and `Decoder`, checked.

    Attributes:
        max_length: The most bytes after version 2's fixed part of 16.
        verify_checksum: Whether a CRC32C, if present, has to be right.
        tolerate: What is tolerated.
    """

    max_length: int
    verify_checksum: bool
    tolerate: Tolerance


def check_max_length(max_length: object) -> None:
    """Refuse a limit that forbids some addresses, or that no header can reach.

    Raises:
        InvalidOption: If the limit is out of range.
    """
    if not (isinstance(max_length, int) and SMALLEST_LIMIT_BYTES <= max_length <= LARGEST_LIMIT_BYTES):
        raise InvalidOption(
            f"it takes {SMALLEST_LIMIT_BYTES} bytes, two Unix addresses, to {LARGEST_LIMIT_BYTES}, the most that the"
            " length field can say",
            option="max_length",
            value=max_length,
        )


def check_timeout(timeout: object) -> None:
    """Refuse a deadline that passes before it begins.

    Raises:
        InvalidOption: If it is not a number above 0.
    """
    if not (isinstance(timeout, int | float) and not isinstance(timeout, bool) and timeout > 0):
        raise InvalidOption("it takes seconds, more than 0", option="timeout", value=timeout)
