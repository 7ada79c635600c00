"""The contents of a certificate, whichever library parsed it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from datetime import datetime

DistinguishedName: TypeAlias = tuple[tuple[tuple[str, str | bytes], ...], ...]
"""Its parts, each of pairs of type and value. A value is bytes if it is a bit string."""


class CertificateDetails(NamedTuple):
    """The contents of a certificate, with OpenSSL's names of types."""

    subject: DistinguishedName
    issuer: DistinguishedName
    not_before: datetime
    not_after: datetime
    serial_number: str
    alternative_names: tuple[tuple[str, str | DistinguishedName], ...]
