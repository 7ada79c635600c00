"""A client's certificate is described alike, whether our own handshake brought it or a PROXY header did."""

from __future__ import annotations

import ssl
import sys
from contextlib import suppress
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import ExtensionOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from esockd_core import PeerCertificate, TlsOptions
from esockd_core._tls.engine import TlsEngine
from esockd_core._tls.facts import describe_tls, describe_tls_at_proxy
from esockd_core._tls.x509 import LONG_NAMES, read_details
from esockd_proxyproto import Endpoint, ProxyHeader, SslInfo, SslSubtype, Tlv

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

AUTHORITY = trustme.CA()
KEY = ec.generate_private_key(ec.SECP256R1())
SIGNER = serialization.load_pem_private_key(AUTHORITY.private_key_pem.bytes(), None)
BEGIN = datetime(2020, 2, 29, 12, 0, 1, tzinfo=UTC)
END = datetime(2060, 1, 2, 3, 4, 5, tzinfo=UTC)  # of the kind of time that begins with 2050


def certificate(
    subject: x509.Name, names: Sequence[x509.GeneralName] = (), raw_names: bytes | None = None, serial: int = 0xABC
) -> bytes:
    """DER of a certificate that the authority signed for `KEY`."""
    issuer = x509.load_pem_x509_certificate(AUTHORITY.cert_pem.bytes()).subject
    builder = (
        x509.CertificateBuilder(issuer, subject, KEY.public_key(), serial).not_valid_before(BEGIN).not_valid_after(END)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if raw_names is not None:
        raw = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, raw_names)
        builder = builder.add_extension(raw, critical=False)
    assert isinstance(SIGNER, ec.EllipticCurvePrivateKey)
    return builder.sign(SIGNER, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def by_header(der: bytes, common_name: bytes | None = None, verify: int = 0) -> PeerCertificate:
    """What is known of it where a proxy sends it."""
    tlvs = [Tlv(SslSubtype.CLIENT_CERTIFICATE, der)] if common_name is None else []
    if common_name is not None:
        tlvs = [Tlv(SslSubtype.COMMON_NAME, common_name), Tlv(SslSubtype.CLIENT_CERTIFICATE, der)]
    info = SslInfo(client=7, verify=verify, tlvs=tuple(tlvs))
    source = Endpoint("192.0.2.7", 41000)
    described = describe_tls_at_proxy(ProxyHeader(source=source, destination=source, tlvs=[info.to_tlv()]))
    assert described is not None
    assert described.peer_certificate is not None
    return described.peer_certificate


@pytest.fixture
def server(tmp_path: Path) -> TlsOptions:
    AUTHORITY.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    AUTHORITY.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return TlsOptions(certfile=tmp_path / "server.pem", client_ca=tmp_path / "ca.pem")


def by_handshake(server: TlsOptions, client_file: Path) -> PeerCertificate:
    """What is known of it where its owner shakes hands with us."""
    engine = TlsEngine(server.context)
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    context.load_cert_chain(client_file)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    while not engine.handshaken:
        with suppress(ssl.SSLWantReadError):
            client.do_handshake()
        engine.feed(outgoing.read())
        assert engine.error is None
        incoming.write(engine.take())
    described = describe_tls(engine.tls).peer_certificate
    assert described is not None
    return described


def write_client(folder: Path, der: bytes) -> Path:
    file = folder / "client.pem"
    private = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(KEY.private_bytes(*private) + ssl.DER_cert_to_PEM_cert(der).encode())
    return file


def name(*parts: tuple[tuple[x509.ObjectIdentifier, str], ...]) -> x509.Name:
    rdns = [x509.RelativeDistinguishedName([x509.NameAttribute(*pair) for pair in part]) for part in parts]
    return x509.Name(rdns)


EVERY_TYPE = name(*(((oid, "DE"),) for oid in LONG_NAMES if oid != NameOID.X500_UNIQUE_IDENTIFIER))
NAMES = (
    x509.DNSName("*.example.org"),
    x509.DNSName("xn--bcher-kva.example.org"),
    x509.RFC822Name("sensor@example.org"),
    x509.UniformResourceIdentifier("spiffe://example.org/sensor/7"),
    x509.IPAddress(ip_address("127.0.0.7")),
    x509.IPAddress(ip_address("2001:db8::7")),
    x509.DirectoryName(name(((NameOID.COMMON_NAME, "a, b"),), ((NameOID.ORGANIZATION_NAME, "x"),))),
    x509.RegisteredID(x509.ObjectIdentifier("1.2.3.4")),
    x509.RegisteredID(NameOID.COMMON_NAME),
    x509.OtherName(x509.ObjectIdentifier("1.2.3.4"), b"\x0c\x01a"),
)


@pytest.mark.parametrize(
    ("subject", "names"),
    [
        (name(((NameOID.COMMON_NAME, "sensor 7"),)), NAMES),
        (name(((NameOID.COMMON_NAME, "a"), (NameOID.USER_ID, "7")), ((NameOID.DOMAIN_COMPONENT, "org"),)), ()),
        (name(((NameOID.COMMON_NAME, "first"),), ((NameOID.COMMON_NAME, "last"),)), ()),
        (name(((NameOID.COMMON_NAME, ' #a"+,;<>\\=\u00fc\u4e16\u754c '),)), ()),
        (name(((x509.ObjectIdentifier("1.2.3.4"), "of nobody's list"),)), ()),
        (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "b\u00fc", _type=_ASN1Type.BMPString)]), ()),
        (
            x509.Name([x509.NameAttribute(NameOID.X500_UNIQUE_IDENTIFIER, b"\0\x02", _type=_ASN1Type.BitString)]),
            (),
        ),
        (EVERY_TYPE, ()),
        (x509.Name([]), NAMES),
    ],
    ids=["names", "part of two", "two of a kind", "escapes", "unknown", "bmp", "bits", "every type", "no subject"],
)
def test_handshake_and_header_describe_a_certificate_alike(
    tmp_path: Path, server: TlsOptions, subject: x509.Name, names: tuple[x509.GeneralName, ...]
) -> None:
    der = certificate(subject, names)
    described = by_header(der)
    assert described == by_handshake(server, write_client(tmp_path, der))
    assert (described.not_before, described.not_after, described.serial_number) == (BEGIN, END, "0ABC")
    assert len(described.subject_alternative_names) == len(names)


def test_a_certificate_of_trustme_is_described_alike(tmp_path: Path, server: TlsOptions) -> None:
    issued = AUTHORITY.issue_cert(
        "sensor@example.org", "127.0.0.7", "::1", "*.example.org", common_name="sensor, 7", organization_name="Example"
    )
    file = tmp_path / "client.pem"
    issued.private_key_and_cert_chain_pem.write_to_path(str(file))
    described = by_header(ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode()))
    assert described == by_handshake(server, file)
    assert described.common_name == "sensor, 7"
    assert described.subject is not None
    assert described.subject.startswith("CN=sensor\\, 7,")
    assert ("IP Address", "::1") in described.subject_alternative_names


def test_addresses_in_alternative_names_are_written_as_those_of_peers() -> None:
    described = by_header(certificate(name(((NameOID.COMMON_NAME, "a"),)), NAMES))
    assert ("IP Address", "2001:db8::7") in described.subject_alternative_names


@pytest.mark.parametrize("verify", [0, 1])
def test_whether_the_certificate_is_verified_is_the_word_of_the_proxy(verify: int) -> None:
    assert by_header(certificate(EVERY_TYPE), verify=verify).is_verified is (verify == 0)


def test_the_common_name_of_the_header_stands_in_for_none_of_the_certificate() -> None:
    assert by_header(certificate(name(((NameOID.USER_ID, "7"),))), b"said the proxy").common_name == "said the proxy"
    assert by_header(certificate(name(((NameOID.COMMON_NAME, "own"),))), b"said the proxy").common_name == "own"


@pytest.mark.parametrize("der", [b"", b"0", b"rubbish", certificate(EVERY_TYPE)[:-1], certificate(EVERY_TYPE) + b"0"])
def test_a_malformed_certificate_is_kept_and_not_described(der: bytes) -> None:
    assert by_header(der, b"sensor 7") == PeerCertificate(common_name="sensor 7", der=der)


@pytest.mark.parametrize("serial", [1, 2**159 - 1])
def test_a_serial_number_has_an_even_number_of_digits(tmp_path: Path, server: TlsOptions, serial: int) -> None:
    der = certificate(x509.Name([]), serial=serial)
    described = by_header(der)
    assert described == by_handshake(server, write_client(tmp_path, der))
    assert described.serial_number is not None
    assert len(described.serial_number) % 2 == 0


def test_no_warning_comes_of_an_odd_certificate() -> None:
    """Warnings are errors in these tests."""
    with pytest.warns(UserWarning, match="length|characters"):
        odd = x509.NameAttribute(NameOID.COUNTRY_NAME, "DEU", _validate=False)
    assert by_header(certificate(x509.Name([odd]))).subject == "C=DEU"


@given(at=st.integers(0, 600), flip=st.integers(1, 255))
def test_no_certificate_that_somebody_changed_breaks_anything(at: int, flip: int) -> None:
    der = bytearray(certificate(EVERY_TYPE, NAMES, serial=1))
    der[at % len(der)] ^= flip
    details = read_details(bytes(der))
    assert details is None or details.serial_number


def test_a_certificate_that_python_makes_no_text_of_does_not_break_the_connection(
    tmp_path: Path, server: TlsOptions
) -> None:
    """An authority may sign a host name that is no ASCII."""
    der = certificate(name(((NameOID.COMMON_NAME, "a"),)), raw_names=b"\x30\x03\x82\x01\xff")
    described = by_handshake(server, write_client(tmp_path, der))
    assert (described.subject, described.der) == (None, der)
    assert described == by_header(der)


def test_an_address_of_three_bytes_is_none(tmp_path: Path, server: TlsOptions) -> None:
    der = certificate(name(((NameOID.COMMON_NAME, "a"),)), raw_names=b"\x30\x05\x87\x03\x7f\x00\x01")
    described = by_handshake(server, write_client(tmp_path, der))
    assert described.subject_alternative_names == (("IP Address", "<invalid>"),)


def test_without_the_library_only_common_name_and_bytes_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    der = certificate(EVERY_TYPE, NAMES)
    without: Any = None
    monkeypatch.setitem(sys.modules, "cryptography", without)
    monkeypatch.delitem(sys.modules, "esockd_core._tls.x509")
    assert by_header(der, b"sensor 7") == PeerCertificate(common_name="sensor 7", der=der)


def test_a_client_without_a_certificate_has_none() -> None:
    source = Endpoint("192.0.2.7", 41000)
    header = ProxyHeader(source=source, destination=source, tlvs=[SslInfo(client=1, verify=1).to_tlv()])
    described = describe_tls_at_proxy(header)
    assert described is not None
    assert described.peer_certificate is None
