"""Writing headers, and refusing to write what the protocol cannot say."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from esockd_proxyproto import (
    Command,
    Endpoint,
    Family,
    ProxyHeader,
    ProxyProtocolError,
    Tlv,
    TlvType,
    Transport,
    UnencodableHeader,
    UnixEndpoint,
    decode,
    encode,
)

A4, B4 = Endpoint("192.0.2.1", 56324), Endpoint("198.51.100.7", 443)
A6, B6 = Endpoint("2001:DB8::1", 1), Endpoint("::ffff:192.0.2.1", 65535)


def test_encode_writes_version_1() -> None:
    assert encode(ProxyHeader(1, source=A4, destination=B4)) == b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n"
    assert encode(ProxyHeader(1, source=A6, destination=B6)) == b"PROXY TCP6 2001:db8::1 ::ffff:192.0.2.1 1 65535\r\n"
    assert encode(ProxyHeader(1)) == b"PROXY UNKNOWN\r\n"
    assert encode(ProxyHeader(1, Command.LOCAL)) == b"PROXY UNKNOWN\r\n"


def test_encode_writes_version_2() -> None:
    signature = "0d0a0d0a000d0a515549540a"
    assert encode(ProxyHeader(command=Command.LOCAL)).hex() == signature + "2000" + "0000"
    assert encode(ProxyHeader()).hex() == signature + "2100" + "0000"
    assert encode(ProxyHeader(source=A4, destination=B4)).hex() == signature + "2111000cc0000201c6336407dc0401bb"
    data = encode(ProxyHeader(source=A6, destination=B6, transport=Transport.DGRAM, tlvs=[Tlv(TlvType.ALPN, b"h2")]))
    assert data.hex() == (
        signature + "22".replace("22", "2122") + "0029" + "20010db8000000000000000000000001"
        "00000000000000000000ffffc0000201" + "0001ffff" + "0100026832"
    )  # fmt: skip
    data = encode(ProxyHeader(source=UnixEndpoint("/run/a"), destination=UnixEndpoint(b"\0b")))
    assert data.hex() == signature + "213100d8" + b"/run/a".hex() + "00" * 102 + "0062" + "00" * 106


def test_encode_computes_the_checksum_anew() -> None:
    header = ProxyHeader(source=A4, destination=B4, tlvs=[Tlv(TlvType.NOOP, b"ab")])
    data = encode(header, checksum=True)
    received, _ = decode(data)
    assert received.tlvs[0] == Tlv(TlvType.NOOP, b"ab")
    assert received.crc32c is not None
    changed = received.replace(source=B4)
    assert decode(encode(changed))[0].crc32c not in {None, received.crc32c}
    assert encode(received, checksum=True) == data
    assert encode(header.replace(tlvs=(Tlv(TlvType.CRC32C, b""),)))[28:31] == b"\3\0\4"


def test_encode_pads_with_a_noop() -> None:
    header = ProxyHeader(source=A4, destination=B4)
    for checksum in (False, True):
        data = encode(header, checksum=checksum, pad_to=536)
        assert len(data) == 536
        assert decode(data)[0].tlvs[-1].type == TlvType.NOOP
    assert encode(header, pad_to=28) == encode(header)
    assert len(encode(header, pad_to=31)) == 31


def _v2(**changes: Any) -> ProxyHeader:
    return ProxyHeader(source=A4, destination=B4).replace(**changes)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (_v2(version=3), "version is 3; the protocol has 1 and 2"),
        (_v2(command=2), "command is 2"),
        (_v2(family=4), "family 4 and transport"),
        (_v2(transport=3), "transport 3"),
        (_v2(transport=Transport.UNSPEC), "leave both unspecified or neither"),
        (_v2(source=None), r"source is None; family INET needs an Endpoint\(host, port\)"),
        (_v2(destination=A6), "destination host '2001:DB8::1' is not an IPv4 address"),
        (
            _v2(family=Family.INET6),
            "source host '192.0.2.1' is not an IPv6 address; write an IPv4 one as ::ffff:a.b.c.d",
        ),
        (_v2(source=Endpoint("localhost", 1)), "source host 'localhost'"),
        (_v2(source=Endpoint("1.2.3.4\0", 1)), "source host"),
        (_v2(source=Endpoint("1.2.3.4", 65536)), "source port is 65536; ports are 0 to 65535"),
        (_v2(destination=Endpoint("1.2.3.4", -1)), "destination port is -1"),
        (_v2(destination=("1.2.3.4", "80")), "destination port is '80'"),
        (_v2(family=Family.UNIX), r"source is Endpoint.*; family UNIX needs a UnixEndpoint\(path\)"),
        (
            ProxyHeader(source=UnixEndpoint("x" * 109), destination=UnixEndpoint("")),
            "source path has 109 bytes; 108 fit",
        ),
        (_v2(command=Command.LOCAL), "carry no addresses"),
        (_v2(family=Family.UNSPEC, transport=Transport.UNSPEC), "carry no addresses"),
        (_v2(tlvs=(Tlv(1, bytes(65530)),)), "65545 bytes of addresses and TLVs"),
        (_v2(tlvs=(Tlv(5, bytes(129)),)), "a UNIQUE_ID of 129 bytes; at most 128"),
        (_v2(tlvs=(Tlv(3, b""), Tlv(3, b""))), "two TLVs of type CRC32C"),
        (_v2(version=1, tlvs=(Tlv(1, b""),)), "version 1 has no TLVs"),
        (_v2(version=1, transport=Transport.DGRAM), "version 1 carries TCP over IPv4 and IPv6 alone"),
        (_v2(version=1, command=Command.LOCAL), "carry no addresses"),
        (_v2(version=1, destination=A6), "destination host"),
        (ProxyHeader(1, source=UnixEndpoint("/a"), destination=UnixEndpoint("/b")), "use version=2"),
    ],
)
def test_encode_refuses_what_the_protocol_cannot_say(header: ProxyHeader, message: str) -> None:
    with pytest.raises(UnencodableHeader, match=message) as caught:
        encode(header)
    assert isinstance(caught.value, ProxyProtocolError)


def test_a_header_is_not_made_of_tlvs_out_of_range() -> None:
    with pytest.raises(UnencodableHeader, match="a TLV of type 256"):
        ProxyHeader(tlvs=[Tlv(256, b"")])
    with pytest.raises(UnencodableHeader, match="with 65536 bytes"):
        ProxyHeader(tlvs=[Tlv(1, bytes(65536))])


def test_encode_refuses_padding_that_no_noop_fills() -> None:
    for pad_to in (29, 30):
        with pytest.raises(UnencodableHeader, match="the header has 28 bytes: a NOOP of 3 or more"):
            encode(_v2(), pad_to=pad_to)
    with pytest.raises(UnencodableHeader, match="more than pad_to=27"):
        encode(_v2(), pad_to=27)
    with pytest.raises(UnencodableHeader, match="version 1 has no"):
        encode(_v2(version=1), pad_to=100)
    with pytest.raises(UnencodableHeader, match="version 1 has no"):
        encode(_v2(version=1), checksum=True)


def test_a_header_is_a_value() -> None:
    header = ProxyHeader(source=A4, destination=B4, tlvs=[Tlv(1, b"h2")])
    assert header == ProxyHeader(
        2, Command.PROXY, Family.INET, Transport.STREAM, Endpoint(*A4), Endpoint(*B4), (Tlv(1, b"h2"),)
    )
    assert pickle.loads(pickle.dumps(header)) == copy.deepcopy(header) == header
    assert len({header, copy.copy(header)}) == 1
    assert header.replace(version=1).tlvs == header.tlvs == (Tlv(1, b"h2"),)
    assert repr(header).endswith(
        "destination=Endpoint(host='198.51.100.7', port=443), tlvs=(Tlv(type=1, value=b'h2'),))"
    )
    with pytest.raises(AttributeError):
        header.version = 1  # type: ignore[misc]


def test_endpoints_read_as_addresses() -> None:
    assert str(A4) == "192.0.2.1:56324"
    assert str(Endpoint("::1", 5)) == "[::1]:5"
    assert str(UnixEndpoint("/run/x")) == "unix:/run/x"
    assert str(UnixEndpoint(b"\0x")) == "unix:@x"
    assert UnixEndpoint("/é").path == "/é".encode()
