"""Reading either version, from a buffer or from a datagram."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from ._errors import IncompleteHeader, InvalidHeader
from ._options import DEFAULT_LIMIT_BYTES, Tolerance, check_max_length
from ._v1 import decode_v1
from ._v2 import FIXED, decode_v2

if TYPE_CHECKING:
    from ._header import ProxyHeader

Buffer: TypeAlias = bytes | bytearray | memoryview


def decode(
    data: Buffer,
    *,
    max_length: int = DEFAULT_LIMIT_BYTES,
    verify_checksum: bool = True,
    tolerate: Tolerance = Tolerance.NONE,
) -> tuple[ProxyHeader, int]:
    r"""Read the PROXY protocol header that data starts with, of version 1 or 2.

    Exactly one of three things happens: a header comes back, more bytes are needed, or no bytes could help. Bytes
    after the header are never looked at.

    Args:
        data: What has been received so far, from the first byte on.
        max_length: The most bytes after version 2's fixed part of 16: 216 to 65,535.
        verify_checksum: Whether a CRC32C, if present, has to be right (PP 2.2.3).
        tolerate: Senders' mistakes to tolerate, by name; none by default.

    Returns:
        The header, and the number of bytes it took.

    Raises:
        IncompleteHeader: If the bytes are a strict prefix of something that could still become valid.
        InvalidHeader: If the bytes prove that they cannot. `NotProxyHeader` when not even the signature is there.
        InvalidOption: If ``max_length`` is out of range.

    Source: HAProxy's PROXY protocol specification of 2026/04/27, sections 2.1 and 2.2.

    >>> header, consumed = decode(b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\nGET /")
    >>> header.source, consumed
    (Endpoint(host='192.0.2.1', port=56324), 45)
    """
    if max_length != DEFAULT_LIMIT_BYTES:
        check_max_length(max_length)
    if type(data) is not bytes:
        data = memoryview(data).cast("B")[: FIXED.size + max_length].tobytes()
    if data < b"P" and data:  # version 1 starts with P, version 2 below it; this comparison is cheaper than any slice
        return decode_v2(data, max_length, verify_checksum, tolerate)
    return decode_v1(data, tolerate)


def decode_datagram(
    data: Buffer,
    *,
    max_length: int = DEFAULT_LIMIT_BYTES,
    verify_checksum: bool = True,
    tolerate: Tolerance = Tolerance.NONE,
) -> tuple[ProxyHeader, bytes]:
    """Read the header before a datagram's payload. Each datagram carries its own (PP 2).

    Args:
        data: One whole datagram.
        max_length: As for `decode`.
        verify_checksum: As for `decode`.
        tolerate: As for `decode`.

    Returns:
        The header and the payload, which may be empty.

    Raises:
        InvalidHeader: If the datagram has no whole, valid header; no later bytes could complete it.
        InvalidOption: If ``max_length`` is out of range.
    """
    try:
        header, consumed = decode(data, max_length=max_length, verify_checksum=verify_checksum, tolerate=tolerate)
    except IncompleteHeader as error:
        reason = f"the datagram ends at least {error.missing} bytes before its header does"
        raise InvalidHeader(reason, len(memoryview(data).cast("B")), "PP 2") from None
    return header, bytes(data[consumed:])
