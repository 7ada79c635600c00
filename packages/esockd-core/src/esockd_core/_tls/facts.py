"""The facts about a connection's TLS: its parameters, and the peer's certificate in readable form."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final

from esockd_core._plain import PlainValue
from esockd_core._tls.certificate import CertificateDetails, DistinguishedName

if TYPE_CHECKING:
    from esockd_core._options.tls import ServerSide
    from esockd_proxyproto import ProxyHeader

# RFC 4514 section 3; any other type keeps OpenSSL's long name.
SHORT_NAMES: Final = {
    "commonName": "CN",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "streetAddress": "STREET",
    "domainComponent": "DC",
    "userId": "UID",
}
SPECIAL: Final = frozenset('"+,;<>\\')


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerCertificate(PlainValue):
    r"""The certificate a client showed.

    A PROXY header has only the common name and, from few proxies, `der`. With the extra `x509` of this package the rest
    is read from `der`. It stays None if the library cannot read the certificate.

    Attributes:
        subject: Its distinguished name as RFC 4514 writes it, such as "CN=sensor 7,O=Example\\, Inc.,C=DE".
        common_name: The subject's last CN.
        issuer: The issuer's distinguished name, as `subject`.
        not_before: Valid from, in UTC.
        not_after: Valid until, in UTC.
        serial_number: In hexadecimal, an even number of capital digits.
        subject_alternative_names: Pairs of kind and value, such as ("DNS", "sensor7.example.org"). OpenSSL names the
            kinds: "DNS", "email", "URI", "IP Address", "DirName" and rarer ones.
        is_verified: Whether an authority that this side, or the proxy, trusts has signed it.
        der: The certificate itself, to read with a library for X.509.
    """

    subject: str | None = None
    common_name: str | None = None
    issuer: str | None = None
    not_before: datetime | None = None
    not_after: datetime | None = None
    serial_number: str | None = None
    subject_alternative_names: tuple[tuple[str, str], ...] = ()
    is_verified: bool = True
    der: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsInfo(PlainValue):
    """The TLS of a connection.

    Attributes:
        version: Such as "TLSv1.3".
        cipher: In OpenSSL's form, such as "TLS_AES_256_GCM_SHA384".
        server_name: The name the client asked for (SNI); None when it asked for none.
        alpn: The application protocol agreed on; None if there is none in common.
        peer_certificate: The client's certificate; None if it showed none.
        psk_identity: The identity whose pre-shared key the client proved to have (RFC 4279); None if it used none.
        ended_at_proxy: Whether TLS ended at the proxy in front, and these facts come from its PROXY header.
    """

    version: str | None
    cipher: str | None
    server_name: str | None
    alpn: str | None
    peer_certificate: PeerCertificate | None
    psk_identity: str | None = None
    ended_at_proxy: bool = False


def describe_tls(tls: ServerSide) -> TlsInfo:
    """The facts about a connection after its handshake."""
    cipher = tls.cipher()
    return TlsInfo(
        version=tls.version(),
        cipher=None if cipher is None else cipher[0],
        server_name=tls.server_name,
        alpn=tls.selected_alpn_protocol(),
        peer_certificate=_read_certificate(tls),
    )


def describe_tls_at_proxy(header: ProxyHeader) -> TlsInfo | None:
    """The facts in a PROXY header about the TLS that ended at the proxy; None if it has none (PP 2.2.6).

    Raises:
        esockd_proxyproto.InvalidTlv: If a value is malformed.
    """
    info = header.ssl
    if info is None or not info.is_tls:
        return None
    certificate = None
    if info.has_certificate:
        der = info.client_certificate
        certificate = _describe(None if der is None else _read_der(der), der, info.common_name, info.is_verified)
    alpn = header.alpn
    return TlsInfo(
        version=info.version,
        cipher=info.cipher,
        server_name=header.authority,
        alpn=None if alpn is None else alpn.decode("ascii", "backslashreplace"),
        peer_certificate=certificate,
        ended_at_proxy=True,
    )


def describe_certificate(der: bytes) -> PeerCertificate:
    """What is known of a certificate that was verified; little without the library that reads it."""
    return _describe(_read_der(der), der)


def _read_certificate(tls: ServerSide) -> PeerCertificate | None:
    der = tls.getpeercert(binary_form=True)
    # OpenSSL has verified it: a listener that asks for certificates refuses bad ones. Python parses no others.
    return None if der is None else _describe(_read_parsed(tls), der)


def _describe(
    details: CertificateDetails | None, der: bytes | None, common_name: str | None = None, is_verified: bool = True
) -> PeerCertificate:
    if details is None:
        return PeerCertificate(common_name=common_name, is_verified=is_verified, der=der)
    own_names = (_text(value) for part in reversed(details.subject) for kind, value in part if kind == "commonName")
    return PeerCertificate(
        subject=format_name(details.subject),
        common_name=next(own_names, common_name),
        issuer=format_name(details.issuer),
        not_before=details.not_before,
        not_after=details.not_after,
        serial_number=details.serial_number,
        subject_alternative_names=tuple((kind, _format(kind, value)) for kind, value in details.alternative_names),
        is_verified=is_verified,
        der=der,
    )


def _read_parsed(tls: ServerSide) -> CertificateDetails | None:
    try:
        parsed: dict[str, Any] = tls.getpeercert() or {}
        return CertificateDetails(
            subject=parsed["subject"],
            issuer=parsed["issuer"],
            not_before=_read_time(parsed["notBefore"]),
            not_after=_read_time(parsed["notAfter"]),
            serial_number=parsed["serialNumber"],
            alternative_names=parsed.get("subjectAltName", ()),
        )
    except (KeyError, ValueError, ssl.SSLError):  # an authority signed what Python cannot make text of
        return None


def _read_der(der: bytes) -> CertificateDetails | None:
    try:
        from esockd_core._tls.x509 import read_details  # noqa: PLC0415 (an extra, and few proxies send certificates)
    except ImportError:
        return None
    return read_details(der)


def _format(kind: str, value: str | DistinguishedName) -> str:
    if not isinstance(value, str):
        return format_name(value)
    if kind == "IP Address":
        try:
            return str(ip_address(value))  # as in `peername`; OpenSSL shortens no IPv6 address
        except ValueError:
            pass
    return value


def format_name(name: DistinguishedName) -> str:
    """Write a distinguished name, the last part first (RFC 4514 section 2.1)."""
    return ",".join(
        "+".join(f"{SHORT_NAMES.get(kind, kind)}={_escape(_text(value))}" for kind, value in part)
        for part in reversed(name)
    )


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.hex()


def _escape(value: str) -> str:
    """RFC 4514 section 2.4."""
    escaped = "".join("\\" + char if char in SPECIAL else "\\00" if char == "\0" else char for char in value)
    if value.startswith((" ", "#")):
        escaped = "\\" + escaped
    if value.endswith(" ") and len(value) > 1:
        escaped = escaped[:-1] + "\\ "
    return escaped


def _read_time(text: str) -> datetime:
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(text), UTC)
