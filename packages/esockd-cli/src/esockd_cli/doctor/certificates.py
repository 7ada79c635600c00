"""The dates of certificates in PEM files (RFC 5280 section 4.1.2.5), read without a library for certificates."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

BLOCK: Final = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
SEQUENCE: Final = 0x30
VERSION: Final = 0xA0  # [0] EXPLICIT, which certificates of version 1 leave out
UTC_TIME: Final = 0x17
GENERALIZED_TIME: Final = 0x18


class NotACertificate(Exception):  # noqa: N818 (an answer)
    """A file has no certificate, or one that cannot be read; the text says which."""


@dataclass(frozen=True, slots=True)
class Validity:
    """When a certificate is valid.

    Attributes:
        since: Seconds since the epoch.
        until: Seconds since the epoch.
    """

    since: float
    until: float

    @property
    def since_text(self) -> str:
        """Its first day."""
        return datetime.fromtimestamp(self.since, UTC).strftime("%Y-%m-%d")

    @property
    def until_text(self) -> str:
        """Its last day."""
        return datetime.fromtimestamp(self.until, UTC).strftime("%Y-%m-%d")


def read_validities(text: str) -> list[Validity]:
    """The dates of all certificates in a PEM file, in their order.

    Raises:
        NotACertificate: There is none, or one cannot be read.
    """
    found = BLOCK.findall(text)
    if not found:
        raise NotACertificate("it has no certificate in PEM form")
    try:
        return [read_validity(ssl.PEM_cert_to_DER_cert(block)) for block in found]
    except (ValueError, IndexError) as error:
        raise NotACertificate("it has a certificate that cannot be read") from error


def read_validity(der: bytes) -> Validity:
    """The dates of a certificate.

    Raises:
        ValueError: It is not one.
        IndexError: It is cut short.
    """
    signed, _ = _inside(_inside(der)[0])
    fields = [*_parts(signed)]
    if fields[0][0] == VERSION:
        del fields[0]
    kind, dates = fields[3]  # after serialNumber, signature and issuer
    if kind != SEQUENCE:
        raise ValueError("there is no validity")
    (since, until) = _parts(dates)
    return Validity(_time(*since), _time(*until))


def _parts(data: bytes) -> list[tuple[int, bytes]]:
    parts = []
    while data:
        kind = data[0]
        inside, data = _inside(data)
        parts.append((kind, inside))
    return parts


def _inside(data: bytes) -> tuple[bytes, bytes]:
    """The content of the first value, and what follows it (X.690 section 8.1.3)."""
    length, start = data[1], 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(data[2:start], "big")
    if start + length > len(data):
        raise ValueError("it is cut short")
    return data[start : start + length], data[start + length :]


def _time(kind: int, value: bytes) -> float:
    text = value.decode("ascii")
    if kind == UTC_TIME:
        text = f"{19 if int(text[:2]) >= 50 else 20}{text}"  # RFC 5280: YY of 50 or more is 19YY
    elif kind != GENERALIZED_TIME:
        raise ValueError("it is not a time")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()
