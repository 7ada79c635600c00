"""Typed views of raw values, looked up on demand: a header costs nothing for values that nobody asks for."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from ._errors import InvalidTlv
from ._tlv import SslSubtype, Tlv, TlvType, join, split

_SSL_FIXED: Final = struct.Struct("!BI")
_AWS_VPCE_ID: Final = b"\x01"
_AZURE_LINK_ID: Final = b"\x01"


@dataclass(frozen=True, slots=True)
class SslInfo:
    """The client's TLS connection, as the proxy saw it (PP 2.2.6).

    Attributes:
        client: Bit field: 1 for a TLS connection, 2 for a certificate on this connection, 4 for one in this session.
        verify: 0 when the client presented a certificate and it was verified, an error number otherwise.
        tlvs: The sub-TLVs, in order and raw.
    """

    client: int
    verify: int
    tlvs: tuple[Tlv, ...] = ()

    @property
    def _tlv_bytes(self) -> bytes:
        return join(self.tlvs)

    @property
    def is_tls(self) -> bool:
        """Whether the client connected over TLS."""
        return bool(self.client & 1)

    @property
    def has_certificate(self) -> bool:
        """Whether the client presented a certificate on this connection or earlier in its TLS session."""
        return bool(self.client & 6)

    @property
    def is_verified(self) -> bool:
        """Whether the client presented a certificate and the proxy verified it. ``verify`` alone does not say so."""
        return self.has_certificate and self.verify == 0

    @property
    def version(self) -> str | None:
        """The TLS version, such as ``TLSv1.3``."""
        return text(self._tlv_bytes, SslSubtype.VERSION, "ascii")

    @property
    def common_name(self) -> str | None:
        """The Common Name of the client certificate's subject."""
        return text(self._tlv_bytes, SslSubtype.COMMON_NAME, "utf-8")

    @property
    def cipher(self) -> str | None:
        """The cipher suite, such as ``ECDHE-RSA-AES128-GCM-SHA256``."""
        return text(self._tlv_bytes, SslSubtype.CIPHER, "ascii")

    @property
    def signature_algorithm(self) -> str | None:
        """The algorithm that signed the proxy's certificate, such as ``RSA-SHA256``."""
        return text(self._tlv_bytes, SslSubtype.SIGNATURE_ALGORITHM, "ascii")

    @property
    def key_algorithm(self) -> str | None:
        """The key of the proxy's certificate, such as ``RSA2048``."""
        return text(self._tlv_bytes, SslSubtype.KEY_ALGORITHM, "ascii")

    @property
    def group(self) -> str | None:
        """The key exchange, such as ``secp256r1``."""
        return text(self._tlv_bytes, SslSubtype.GROUP, "ascii")

    @property
    def signature_scheme(self) -> str | None:
        """The scheme with which the proxy signed the handshake, such as ``rsa_pss_rsae_sha256``."""
        return text(self._tlv_bytes, SslSubtype.SIGNATURE_SCHEME, "ascii")

    @property
    def client_certificate(self) -> bytes | None:
        """The client's X.509 certificate in DER."""
        return find(self._tlv_bytes, SslSubtype.CLIENT_CERTIFICATE)

    def to_tlv(self) -> Tlv:
        """The raw form, for a header to send."""
        return Tlv(TlvType.SSL, _SSL_FIXED.pack(self.client, self.verify) + self._tlv_bytes)


def find(tlv_bytes: bytes, wanted: int) -> bytes | None:
    """The value of the first TLV of a type."""
    for type_, value in split(tlv_bytes, 0) or ():
        if type_ == wanted:
            return value
    return None


def text(tlv_bytes: bytes, wanted: int, encoding: str) -> str | None:
    """The value of the first TLV of a type, as text."""
    value = find(tlv_bytes, wanted)
    return None if value is None else _decoded(value, wanted, encoding)


def integer(tlv_bytes: bytes, wanted: int, *, size_bytes: int = 4) -> int | None:
    """The value of the first TLV of a type, as a number in network byte order."""
    value = find(tlv_bytes, wanted)
    if value is None:
        return None
    if len(value) != size_bytes:
        raise InvalidTlv(f"it is a number of {size_bytes} bytes", option=f"TLV 0x{wanted:02x}", value=value)
    return int.from_bytes(value, "big")


def ssl(tlv_bytes: bytes) -> SslInfo | None:
    """The value of the SSL TLV, one level deep: no sub-TLV holds another."""
    value = find(tlv_bytes, TlvType.SSL)
    if value is None:
        return None
    if len(value) < _SSL_FIXED.size:
        raise InvalidTlv("its fixed part alone takes 5 bytes (PP 2.2.6)", option="TLV 0x20", value=value)
    client, verify = _SSL_FIXED.unpack_from(value)
    sub_tlvs = split(value, _SSL_FIXED.size)
    if sub_tlvs is None:
        raise InvalidTlv("its sub-TLVs do not end where it ends (PP 2.2.6)", option="TLV 0x20", value=value)
    return SslInfo(client, verify, sub_tlvs)


def aws_vpce_id(tlv_bytes: bytes) -> str | None:
    """The id after AWS's sub-type byte 1."""
    for type_, value in split(tlv_bytes, 0) or ():
        if type_ == TlvType.AWS and value[:1] == _AWS_VPCE_ID:
            return _decoded(value[1:], TlvType.AWS, "ascii")
    return None


def azure_link_id(tlv_bytes: bytes) -> int | None:
    """The number after Azure's sub-type byte 1, the only little-endian number of the protocol."""
    for type_, value in split(tlv_bytes, 0) or ():
        if type_ == TlvType.AZURE and value[:1] == _AZURE_LINK_ID:
            if len(value) != 5:
                raise InvalidTlv("Azure's LINKID is a number of 4 bytes", option="TLV 0xee", value=value[1:])
            return int.from_bytes(value[1:], "little")
    return None


def _decoded(value: bytes, type_: int, encoding: str) -> str:
    try:
        return value.decode(encoding)
    except UnicodeDecodeError as error:
        raise InvalidTlv(f"it is not {encoding} text", option=f"TLV 0x{type_:02x}", value=value) from error
