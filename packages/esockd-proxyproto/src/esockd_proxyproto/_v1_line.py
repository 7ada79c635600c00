"""Reading version 1's line field by field (PP 2.1): every prefix gets its answer as early as it proves it.

This is the general way. It is a hundred times slower than the direct one in `_v1`, and taken when that one finds no
header.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from functools import cache
from typing import Final, NamedTuple, NoReturn

from ._endpoint import Endpoint
from ._errors import IncompleteHeader, InvalidHeader, NotProxyHeader
from ._header import Command, Family, ProxyHeader, Transport
from ._options import Tolerance
from ._v1_fields import Field, Value, address_field, port_field

SIGNATURE: Final = b"PROXY "
LINE_LIMIT_BYTES: Final = 107  # of the longest line, with its CRLF

_match_text: Final = re.compile(rb"[0-9A-Fa-f:.]*").match


def read_line(line: bytes, tolerate: Tolerance) -> tuple[ProxyHeader, int]:
    """Read the line at the start of at most 107 bytes.

    Raises:
        IncompleteHeader: If a valid line may still come of them.
        InvalidHeader: If no valid line can.
    """
    try:
        return _Reader(line, tolerate).read()
    except (IncompleteHeader, InvalidHeader) as error:
        sound = line[: error.offset] if isinstance(error, InvalidHeader) else line
        if _least_length(sound, tolerate) <= LINE_LIMIT_BYTES:
            raise
    # The sound part can no longer end within the limit. Find the byte that made it so.
    lengths = range(1, len(sound))
    offset = bisect_right(lengths, LINE_LIMIT_BYTES, key=lambda n: _least_length(line[:n], tolerate))
    raise InvalidHeader("the line cannot end with CRLF within 107 characters", offset, "PP 2.1")


def _least_length(line: bytes, tolerate: Tolerance) -> int:
    """The length of the shortest valid line that starts like this."""
    try:
        return _Reader(line, tolerate).read()[1]
    except IncompleteHeader as error:
        return len(line) + error.missing


class _Protocol(NamedTuple):
    """What may follow one keyword."""

    family: Family
    address: Field[str]
    port: Field[int]
    line_end_bytes: int

    @property
    def least(self) -> tuple[int, ...]:
        """The least number of bytes after the keyword, and after each field that follows."""
        source_port = self.line_end_bytes + 1 + self.port.minimum
        destination = source_port + 1 + self.port.minimum
        source = destination + 1 + self.address.minimum
        return source + 1 + self.address.minimum, source, destination, source_port, self.line_end_bytes


@cache
def _protocols(tolerate: Tolerance) -> dict[bytes, _Protocol]:
    mixed, zeros = Tolerance.MIXED_FAMILIES in tolerate, Tolerance.LEADING_ZEROS in tolerate
    port = port_field(leading_zeros=zeros)
    tcp4 = address_field(inet=True, inet6=mixed, leading_zeros=zeros)
    tcp6 = address_field(inet=mixed, inet6=True, leading_zeros=zeros)
    end = 1 if Tolerance.LF_LINE_END in tolerate else 2
    return {b"TCP4": _Protocol(Family.INET, tcp4, port, end), b"TCP6": _Protocol(Family.INET6, tcp6, port, end)}


class _Reader:
    def __init__(self, line: bytes, tolerate: Tolerance) -> None:
        self._line = line
        self._at = 0
        self._lf_ends = Tolerance.LF_LINE_END in tolerate
        self._blanks_repeat = Tolerance.EXTRA_BLANKS in tolerate
        self._protocols = _protocols(tolerate)
        self._line_end_bytes = 1 if self._lf_ends else 2

    def read(self) -> tuple[ProxyHeader, int]:
        """Read from the first byte to the line's end."""
        least = {keyword: protocol.least[0] for keyword, protocol in self._protocols.items()}
        least[b"UNKNOWN"] = self._line_end_bytes
        self._signature(min(len(keyword) + rest for keyword, rest in least.items()))
        keyword = self._keyword(least)
        if keyword == b"UNKNOWN":
            self._unknown()
            return ProxyHeader(1), self._at
        protocol = self._protocols[keyword]
        source_host = self._field(protocol.address, protocol.least[1])
        destination_host = self._field(protocol.address, protocol.least[2])
        source_port = self._field(protocol.port, protocol.least[3])
        destination_port = self._field(protocol.port, protocol.least[4])
        self._line_end()
        source, destination = Endpoint(source_host, source_port), Endpoint(destination_host, destination_port)
        family = Family.INET6 if ":" in source_host else Family.INET
        return ProxyHeader(1, Command.PROXY, family, Transport.STREAM, source, destination), self._at

    def _peek(self, least: int) -> int:
        """The byte to read next; if it has not arrived, at least `least` bytes are missing."""
        if self._at == len(self._line):
            raise IncompleteHeader(least)
        return self._line[self._at]

    def _fail(self, expected: str, offset: int | None = None) -> NoReturn:
        at = self._at if offset is None else offset
        raise InvalidHeader(f"{self._line[at : at + 1]!r} where {expected} belongs", at, "PP 2.1")

    def _signature(self, least: int) -> None:
        while self._at < len(SIGNATURE):
            if self._peek(len(SIGNATURE) - self._at + least) != SIGNATURE[self._at]:
                reason = "the bytes start with neither 'PROXY ' nor the signature of version 2"
                raise NotProxyHeader(reason, self._at, "PP 2.2")
            self._at += 1

    def _keyword(self, least: dict[bytes, int]) -> bytes:
        start = self._at
        candidates = list(least)
        while candidates[0] != self._line[start : self._at]:
            read = self._at - start
            byte = self._peek(min(len(keyword) - read + least[keyword] for keyword in candidates))
            candidates = [keyword for keyword in candidates if keyword[read] == byte]
            if not candidates:
                self._fail("TCP4, TCP6 or UNKNOWN")
            self._at += 1
        return candidates[0]

    def _unknown(self) -> None:
        """Ignore everything between UNKNOWN and the end of the line, control characters included."""
        if self._peek(self._line_end_bytes) != ord(" "):
            self._line_end()
            return
        ending = b"\n" if self._lf_ends else b"\r\n"
        found = self._line.find(ending, self._at)
        if found < 0:
            half = self._line.endswith(ending[:1]) and not self._lf_ends
            raise IncompleteHeader(1 if half else len(ending))
        self._at = found + len(ending)

    def _field(self, field: Field[Value], rest: int) -> Value:
        """Read a blank and the field after it, which at least ``rest`` bytes follow."""
        if self._peek(1 + field.minimum + rest) != ord(" "):
            self._fail("one blank")
        self._at += 1
        while self._blanks_repeat and self._peek(field.minimum + rest) == ord(" "):
            self._at += 1
        start = self._at
        match = _match_text(self._line, start)
        text = match[0].decode() if match else ""
        value = field.read(text)
        missing = 0 if value is not None else field.missing(text)
        if missing is None:
            self._fail(field.name, start + field.first_wrong(text))
        self._at += len(text)
        if value is None or self._at == len(self._line):
            self._peek(missing + rest)
            self._fail(f"the rest of {field.name}" if text else field.name)
        return value

    def _line_end(self) -> None:
        while self._blanks_repeat and self._peek(self._line_end_bytes) == ord(" "):
            self._at += 1
        if self._lf_ends and self._peek(1) == ord("\n"):
            self._at += 1
            return
        for left, byte in ((2, b"\r"), (1, b"\n")):
            if self._peek(self._line_end_bytes if left == 2 else 1) != byte[0]:
                self._fail("CRLF")
            self._at += 1
