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


def _forced(**changes: Any) -> ProxyHeader:
    """A header as `_replace` makes it, which named tuples have and which checks nothing."""
    return ProxyHeader(source=A4, destination=B4)._replace(**changes)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (_forced(version=3), "^version is 3: it takes 1 or 2"),
        (_forced(command=2), "^command is 2: "),
        (_forced(family=4), "^family is 4: "),
        (_forced(transport=3), "^transport is 3: "),
        (_v2(transport=Transport.UNSPEC), "leave both unspecified or neither"),
        (_forced(source=None), r"^source is None: family INET needs an Endpoint\(host, port\)"),
        (_v2(destination=A6), r"^destination\.host is '2001:DB8::1': it takes an IPv4 address\. To mix families"),
        (_v2(family=Family.INET6), r"^source\.host is '192\.0\.2\.1': .* write the IPv4 one as ::ffff:a\.b\.c\.d"),
        (_forced(source=Endpoint("localhost", 1)), r"^source\.host is 'localhost': .* Names are not looked up"),
        (_forced(source=Endpoint("1.2.3.4\0", 1)), r"^source\.host is "),
        (_forced(source=Endpoint("1.2.3.4", 65536)), r"^source\.port is 65536: it takes a whole number, 0 to 65535"),
        (_forced(destination=Endpoint("1.2.3.4", -1)), r"^destination\.port is -1"),
        (_forced(destination=("1.2.3.4", "80")), r"^destination\.port is '80'"),
        (_v2(family=Family.UNIX), r"^source is Endpoint.*: family UNIX needs a UnixEndpoint\(path\)"),
        (
            _forced(family=Family.UNIX, source=UnixEndpoint("x" * 109)),
            r"^source\.path is .* has 109 bytes, and 108 fit",
        ),
        (_v2(command=Command.LOCAL), "carry no addresses"),
        (_v2(family=Family.UNSPEC, transport=Transport.UNSPEC), "carry no addresses"),
        (_v2(tlvs=(Tlv(1, bytes(65530)),)), "addresses and TLVs have 65545 bytes"),
        (_v2(tlvs=(Tlv(5, bytes(129)),)), "a UNIQUE_ID has at most 128 bytes, not 129"),
        (_v2(tlvs=(Tlv(3, b""), Tlv(3, b""))), "one TLV of type CRC32C"),
        (_v2(version=1, tlvs=(Tlv(1, b""),)), "version 1 has no TLVs"),
        (_v2(version=1, transport=Transport.DGRAM), "version 1 carries TCP over IPv4 and IPv6 alone"),
        (_v2(version=1, command=Command.LOCAL), "carry no addresses"),
        (_v2(version=1, destination=A6), r"^destination\.host"),
        (ProxyHeader(1, source=UnixEndpoint("/a"), destination=UnixEndpoint("/b")), r"Use version=2"),
    ],
)
def test_encode_refuses_what_the_protocol_cannot_say(header: ProxyHeader, message: str) -> None:
    with pytest.raises(UnencodableHeader, match=message) as caught:
        encode(header)
    assert isinstance(caught.value, ProxyProtocolError)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"version": 3}, "^version is 3: it takes 1 or 2"),
        ({"command": 2}, r"^command is 2: it takes Command\.LOCAL, Command\.PROXY"),
        ({"family": 4}, "^family is 4: "),
        ({"transport": "TCP"}, "^transport is 'TCP': "),
        ({"source": "192.0.2.1"}, r"^source is '192\.0\.2\.1': it takes an Endpoint, .* Write Endpoint"),
        ({"source": ("192.0.2.1",)}, r"^source is \('192\.0\.2\.1',\): it takes an Endpoint"),
        ({"source": ("localhost", 80)}, r"^source\.host is 'localhost': it takes an IPv4 address\. Names are not"),
        ({"source": Endpoint("fe80::1%eth0", 80)}, r"^source\.host is 'fe80::1%eth0': it takes an IPv6 address"),
        ({"source": (b"192.0.2.1", 80)}, r"^source\.host is b'192"),
        ({"destination": Endpoint("192.0.2.1", 65536)}, r"^destination\.port is 65536"),
        ({"destination": ("192.0.2.1", True)}, r"^destination\.port is True"),
        ({"destination": ("192.0.2.1", "80")}, r"^destination\.port is '80'"),
        ({"source": UnixEndpoint("x" * 109)}, r"^source\.path is b'x{80}'\.\.\.: it has 109 bytes"),
        ({"source": None}, "source and destination go together"),
        ({"destination": None}, "source and destination go together"),
        ({"tlvs": [Tlv(256, b"")]}, "^tlvs is 256: a TLV's type is 0 to 255"),
        ({"tlvs": [Tlv(1, bytes(65536))]}, "a TLV's value is at most 65535 bytes"),
        ({"tlvs": [Tlv(1, "h2")]}, "^tlvs is 'h2': a TLV's value is at most 65535 bytes"),  # type: ignore[arg-type]
    ],
)
def test_a_header_is_checked_when_it_is_built(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UnencodableHeader, match=message):
        ProxyHeader(**{"source": A4, "destination": B4, **fields})
    with pytest.raises(UnencodableHeader, match=message):
        ProxyHeader(source=A4, destination=B4).replace(**fields)


def test_the_tuples_that_sockets_give_are_endpoints() -> None:
    header = ProxyHeader(source=("192.0.2.1", 56324), destination=("198.51.100.7", 443))
    assert header == ProxyHeader(source=A4, destination=B4)
    assert header.source == A4
    assert isinstance(header.source, Endpoint)
    assert ProxyHeader(source=("::1", 5, 0, 0), destination=("::1", 6, 0, 0)).source == Endpoint("::1", 5)


def test_encode_refuses_padding_that_no_noop_fills() -> None:
    for pad_to in (29, 30):
        with pytest.raises(UnencodableHeader, match=f"^pad_to is {pad_to}: the header has 28 bytes, and a NOOP of 3"):
            encode(_v2(), pad_to=pad_to)
    with pytest.raises(UnencodableHeader, match=r"^pad_to is 27: the header has 28 bytes already"):
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
