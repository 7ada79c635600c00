"""Reading a header from bytes as they arrive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ._codec import Buffer, decode
from ._errors import HeaderComplete, IncompleteHeader, InvalidHeader
from ._header import new_record
from ._options import DEFAULT_LIMIT_BYTES, Options, Tolerance, check_max_length
from ._v1_line import SIGNATURE as V1_SIGNATURE
from ._v2 import FIXED, read_fixed
from ._v2 import SIGNATURE as V2_SIGNATURE

if TYPE_CHECKING:
    from ._header import ProxyHeader
    from ._tlv import TlvWalk

_SHORTEST_BYTES: Final = len("PROXY UNKNOWN\r\n")
_STRICT: Final = Tolerance.NONE


class Decoder:
    r"""Collects bytes until they are one whole header, or prove that they cannot become one.

    One decoder reads one header. It holds no more than the header and what the last call of `feed` brought beyond it.
    Small pieces cost little more than large ones.

    Args:
        max_length: As for `decode`.
        verify_checksum: As for `decode`.
        tolerate: As for `decode`.

    Raises:
        InvalidOption: If ``max_length`` is out of range.

    >>> decoder = Decoder()
    >>> decoder.feed(b"PROXY UNKNO")
    >>> decoder.missing
    4
    >>> decoder.feed(b"WN\r\nhello").version, decoder.trailing
    (1, b'hello')
    """

    def __init__(
        self,
        *,
        max_length: int = DEFAULT_LIMIT_BYTES,
        verify_checksum: bool = True,
        tolerate: Tolerance = Tolerance.NONE,
    ) -> None:
        check_max_length(max_length)
        self._options = new_record(Options, (max_length, verify_checksum, tolerate))
        self._buffer = bytearray()
        self._missing = _SHORTEST_BYTES
        if tolerate is not _STRICT and Tolerance.LF_LINE_END in tolerate:  # asking a flag takes long
            self._missing -= 1
        self._whole = 0  # the header's length once version 2's fixed part told it
        self._walk: TlvWalk | None = None
        self._header: ProxyHeader | None = None
        self._error: InvalidHeader | None = None
        self._trailing = b""

    @property
    def header(self) -> ProxyHeader | None:
        """The header once it is complete."""
        return self._header

    @property
    def missing(self) -> int:
        """How many bytes are missing at least; 0 when the header is complete."""
        return self._missing

    @property
    def has_signature(self) -> bool:
        """Whether the whole signature of either version has arrived, so that the sender does speak the protocol."""
        return self._header is not None or self._buffer.startswith((V1_SIGNATURE, V2_SIGNATURE))

    @property
    def trailing(self) -> bytes:
        """What came after the header in the call of `feed` that completed it."""
        return self._trailing

    @property
    def received(self) -> bytes:
        """All bytes fed so far while there is no header; empty once there is one."""
        return bytes(self._buffer)

    def feed(self, data: Buffer) -> ProxyHeader | None:
        """Take the next bytes.

        Args:
            data: What was received, in order. Empty is allowed.

        Returns:
            The header, once; until then None.

        Raises:
            InvalidHeader: If the bytes prove that there is no header; every later call raises the same error.
            HeaderComplete: If the header was already complete: these bytes belong to what comes after it.
        """
        if self._error is not None:
            raise self._error
        if self._header is not None:
            raise HeaderComplete("the header is complete: later bytes belong to what comes after it")
        try:
            if not self._buffer:
                return self._read(data)
            self._buffer += data
            return self._read_on()
        except IncompleteHeader as error:
            self._missing = error.missing
            self._buffer = self._buffer or bytearray(data)
            return None
        except InvalidHeader as error:
            self._error = error
            self._buffer = self._buffer or bytearray(data)
            raise

    def _read(self, data: Buffer) -> ProxyHeader:
        max_length, verify_checksum, tolerate = self._options
        self._header, consumed = decode(data, max_length=max_length, verify_checksum=verify_checksum, tolerate=tolerate)
        self._missing = 0
        self._trailing = bytes(data[consumed:])
        self._buffer.clear()
        return self._header

    def _read_on(self) -> ProxyHeader:
        """Read a header that came in pieces; of its TLVs, only the new ones."""
        available = len(self._buffer)
        if self._walk is None and available >= FIXED.size and self._buffer[0] != ord("P"):
            fixed = read_fixed(self._buffer, self._options)
            self._whole = fixed.total
            self._walk = fixed.walk(self._options)
        if self._walk is not None and available < self._whole:
            self._walk.advance(self._buffer, available)
            raise IncompleteHeader(self._whole - available)
        return self._read(self._buffer)
