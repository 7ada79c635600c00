"""Typed views of TLVs: what they mean, and what happens when the raw value is not of that type."""

from __future__ import annotations

import pytest

from esockd_proxyproto import (
    Endpoint,
    InvalidTlv,
    ProxyHeader,
    SslInfo,
    SslSubtype,
    Tlv,
    TlvType,
    decode,
    encode,
)


def received(*tlvs: Tlv) -> ProxyHeader:
    source, destination = Endpoint("192.0.2.1", 1), Endpoint("192.0.2.2", 2)
    return decode(encode(ProxyHeader(source=source, destination=destination, tlvs=tlvs)))[0]


def test_views_of_a_header_without_tlvs_are_none() -> None:
    header = received()
    assert (header.alpn, header.authority, header.crc32c, header.unique_id, header.ssl) == (None,) * 5
    assert (header.netns, header.aws_vpce_id, header.azure_link_id, header.gcp_psc_connection_id) == (None,) * 4


def test_views_of_plain_values() -> None:
    header = received(
        Tlv(TlvType.NOOP, b"\0\0"),
        Tlv(TlvType.ALPN, b"h2"),
        Tlv(TlvType.AUTHORITY, "bücher.example".encode()),
        Tlv(TlvType.UNIQUE_ID, bytes(range(128))),
        Tlv(TlvType.NETNS, b"blue"),
    )
    assert header.alpn == b"h2"
    assert header.authority == "bücher.example"
    assert header.unique_id == bytes(range(128))
    assert header.netns == "blue"


def test_views_of_cloud_providers() -> None:
    header = received(
        Tlv(TlvType.AWS, b"\x02other"),
        Tlv(TlvType.AWS, b"\x01vpce-08d2bf15fac5001c9"),
        Tlv(TlvType.AZURE, b"\x02"),
        Tlv(TlvType.AZURE, b"\x01\x04\x03\x02\x01"),
        Tlv(TlvType.GCP, bytes.fromhex("00ff001122334455")),
    )
    assert header.aws_vpce_id == "vpce-08d2bf15fac5001c9"
    assert header.azure_link_id == 0x01020304
    assert header.gcp_psc_connection_id == 0x00FF001122334455


@pytest.mark.parametrize("tlv", [Tlv(TlvType.AWS, b""), Tlv(TlvType.AWS, b"\x02x"), Tlv(TlvType.AZURE, b"")])
def test_a_cloud_value_of_another_subtype_is_no_id(tlv: Tlv) -> None:
    assert received(tlv).aws_vpce_id is None
    assert received(tlv).azure_link_id is None


def test_view_of_ssl_with_every_subtype() -> None:
    sub_tlvs = (
        Tlv(SslSubtype.VERSION, b"TLSv1.3"),
        Tlv(SslSubtype.COMMON_NAME, "Zoë".encode()),
        Tlv(SslSubtype.CIPHER, b"TLS_AES_128_GCM_SHA256"),
        Tlv(SslSubtype.SIGNATURE_ALGORITHM, b"RSA-SHA256"),
        Tlv(SslSubtype.KEY_ALGORITHM, b"RSA2048"),
        Tlv(SslSubtype.GROUP, b"X25519"),
        Tlv(SslSubtype.SIGNATURE_SCHEME, b"rsa_pss_rsae_sha256"),
        Tlv(SslSubtype.CLIENT_CERTIFICATE, b"\x30\x82"),
        Tlv(0x2F, b"unknown"),
    )
    ssl = received(SslInfo(client=7, verify=0, tlvs=sub_tlvs).to_tlv()).ssl
    assert ssl == SslInfo(7, 0, sub_tlvs)
    assert (ssl.is_tls, ssl.has_certificate, ssl.is_verified) == (True, True, True)
    assert (ssl.version, ssl.common_name, ssl.cipher) == ("TLSv1.3", "Zoë", "TLS_AES_128_GCM_SHA256")
    assert (ssl.signature_algorithm, ssl.key_algorithm) == ("RSA-SHA256", "RSA2048")
    assert (ssl.group, ssl.signature_scheme) == ("X25519", "rsa_pss_rsae_sha256")
    assert ssl.client_certificate == b"\x30\x82"


def test_a_verify_of_zero_without_a_certificate_verifies_nobody() -> None:
    ssl = received(Tlv(TlvType.SSL, b"\1\0\0\0\0")).ssl
    assert ssl is not None
    assert (ssl.is_tls, ssl.has_certificate, ssl.is_verified) == (True, False, False)
    assert (ssl.version, ssl.client_certificate) == (None, None)
    unverified = received(Tlv(TlvType.SSL, b"\3\0\0\0\x13")).ssl
    assert unverified is not None
    assert (unverified.verify, unverified.has_certificate, unverified.is_verified) == (19, True, False)


def test_an_ssl_value_inside_another_is_a_raw_sub_tlv() -> None:
    inner = SslInfo(1, 0).to_tlv()
    ssl = received(SslInfo(1, 0, (inner,)).to_tlv()).ssl
    assert ssl is not None
    assert ssl.tlvs == (inner,)


@pytest.mark.parametrize(
    ("tlv", "view"),
    [
        (Tlv(TlvType.AUTHORITY, b"\xff"), "authority"),
        (Tlv(TlvType.NETNS, b"\xc3\xa9"), "netns"),
        (Tlv(TlvType.AWS, b"\x01\xff"), "aws_vpce_id"),
        (Tlv(TlvType.AZURE, b"\x01\0\0\0"), "azure_link_id"),
        (Tlv(TlvType.GCP, bytes(7)), "gcp_psc_connection_id"),
        (Tlv(TlvType.SSL, bytes(4)), "ssl"),
        (Tlv(TlvType.SSL, bytes(6)), "ssl"),
        (Tlv(TlvType.SSL, bytes(5) + b"\x21\0\2x"), "ssl"),
    ],
)
def test_a_malformed_value_spoils_its_view_and_not_the_header(tlv: Tlv, view: str) -> None:
    header = received(tlv)
    assert header.tlvs == (tlv,)
    with pytest.raises(InvalidTlv) as raised:
        getattr(header, view)
    assert raised.value.option == f"TLV 0x{tlv.type:02x}"
    assert isinstance(raised.value.value, bytes)
    assert tlv.value.endswith(raised.value.value)
