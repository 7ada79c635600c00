"""Version 2: every command, family and transport, TLVs and their checksum (PP 2.2)."""

from __future__ import annotations

import struct
from itertools import product

import pytest

from esockd_proxyproto import (
    Command,
    Endpoint,
    Family,
    IncompleteHeader,
    InvalidHeader,
    InvalidOption,
    NotProxyHeader,
    Tlv,
    TlvType,
    Tolerance,
    Transport,
    UnixEndpoint,
    decode,
    decode_datagram,
)

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
INET = bytes([192, 0, 2, 1, 198, 51, 100, 7]) + struct.pack("!HH", 56324, 443)
INET6 = bytes.fromhex("20010db8" + "0" * 23 + "1" + "0" * 31 + "1") + struct.pack("!HH", 0, 65535)
UNIX = b"/run/client".ljust(108, b"\0") + b"\0name\0of".ljust(108, b"\0")
BLOCKS = {Family.UNSPEC: b"", Family.INET: INET, Family.INET6: INET6, Family.UNIX: UNIX}
ADDRESSES = {
    Family.INET: (Endpoint("192.0.2.1", 56324), Endpoint("198.51.100.7", 443)),
    Family.INET6: (Endpoint("2001:db8::1", 0), Endpoint("::1", 65535)),
    Family.UNIX: (UnixEndpoint("/run/client"), UnixEndpoint(b"\0name\0of")),
}
PROXY_TCP4 = b"\x21\x11"


def header_of(kind: bytes, block: bytes) -> bytes:
    return SIGNATURE + kind + struct.pack("!H", len(block)) + block


def tlv(type_: int, value: bytes) -> bytes:
    return struct.pack("!BH", type_, len(value)) + value


def slow_crc32c(data: bytes) -> int:
    """RFC 4960 appendix B, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def checksummed(data: bytes) -> bytes:
    at = data.index(tlv(3, bytes(4))) + 3
    return data[:at] + struct.pack("!I", slow_crc32c(data)) + data[at + 4 :]


def assert_only_the_whole_is_a_header(data: bytes, tolerate: Tolerance = Tolerance.NONE) -> None:
    for end in range(len(data)):
        with pytest.raises(IncompleteHeader) as caught:
            decode(data[:end], tolerate=tolerate)
        assert 1 <= caught.value.missing <= len(data) - end
    assert decode(data, tolerate=tolerate)[1] == len(data)


@pytest.mark.parametrize(
    ("family", "transport"),
    list(product([Family.INET, Family.INET6, Family.UNIX], [Transport.STREAM, Transport.DGRAM])),
)
def test_v2_reads_addresses_of_every_family_and_transport(family: Family, transport: Transport) -> None:
    data = header_of(bytes([0x21, family << 4 | transport]), BLOCKS[family] + tlv(0xE5, b"x"))
    header, consumed = decode(data + b"hello")
    assert header.version == 2
    assert header.command is Command.PROXY
    assert (header.family, header.transport) == (family, transport)
    assert (header.source, header.destination) == ADDRESSES[family]
    assert header.tlvs == (Tlv(0xE5, b"x"),)
    assert consumed == len(data)
    assert_only_the_whole_is_a_header(data)


@pytest.mark.parametrize("kind", [0x00, 0x01, 0x02, 0x10, 0x20, 0x30])
def test_v2_has_no_addresses_when_family_or_transport_is_unspecified(kind: int) -> None:
    family, transport = Family(kind >> 4), Transport(kind & 15)
    data = header_of(bytes([0x21, kind]), BLOCKS[family] + tlv(TlvType.ALPN, b"h2"))
    header, consumed = decode(data)
    assert (header.command, header.family, header.transport) == (Command.PROXY, family, transport)
    assert (header.source, header.destination) == (None, None)
    assert (header.alpn, consumed) == (b"h2", len(data))
    assert_only_the_whole_is_a_header(data)


@pytest.mark.parametrize("kind", [0x00, 0x11, 0x12, 0x21, 0x31, 0x13, 0x44, 0xFF])
@pytest.mark.parametrize("block", [b"", b"\1", INET, b"\xff" * 20, tlv(TlvType.CRC32C, b"wrong")])
def test_v2_accepts_local_whatever_its_family_and_block(kind: int, block: bytes) -> None:
    data = header_of(bytes([0x20, kind]), block)
    header, consumed = decode(data + b"payload")
    assert header.command is Command.LOCAL
    assert (header.family, header.transport) == (Family.UNSPEC, Transport.UNSPEC)
    assert (header.source, header.destination, header.tlvs) == (None, None, ())
    assert consumed == len(data)
    assert_only_the_whole_is_a_header(data)


@pytest.mark.parametrize("block", [tlv(1, b"h2"), INET + tlv(1, b"h2")])
def test_v2_keeps_the_tlvs_of_local_with_or_without_addresses_in_front(block: bytes) -> None:
    assert decode(header_of(b"\x20\x11", block))[0].tlvs == (Tlv(TlvType.ALPN, b"h2"),)


def test_v2_verifies_the_checksum_of_local_too() -> None:
    data = checksummed(header_of(b"\x20\x00", tlv(4, b"abc") + tlv(3, bytes(4))))
    assert decode(data)[0].tlvs[0] == Tlv(TlvType.NOOP, b"abc")
    broken = data[:20] + b"\xff" + data[21:]
    with pytest.raises(InvalidHeader) as caught:
        decode(broken)
    assert caught.value.offset == 25
    assert decode(broken, verify_checksum=False)[1] == len(broken)


@pytest.mark.parametrize("path", [b"", b"/", b"\0", b"x" * 108, b"\0" + b"y" * 107])
def test_v2_takes_the_padding_off_unix_paths(path: bytes) -> None:
    header, _ = decode(header_of(b"\x21\x31", path.ljust(108, b"\0") + b"/b\0garbage".ljust(108, b"\0")))
    assert header.source == UnixEndpoint(path if path != b"\0" else b"")
    assert header.destination == UnixEndpoint("/b")


@pytest.mark.parametrize(
    ("data", "offset", "proven_by"),
    [
        pytest.param(b"\r\n\r\nX", 4, 5, id="other signature"),
        pytest.param(SIGNATURE[:11] + b"\r", 11, 12, id="last byte of the signature"),
        pytest.param(SIGNATURE + b"\x11", 12, 13, id="version 1"),
        pytest.param(SIGNATURE + b"\x31", 12, 13, id="version 3"),
        pytest.param(SIGNATURE + b"\x22", 12, 13, id="command 2"),
        pytest.param(SIGNATURE + b"\x21\x41", 13, 14, id="family 4"),
        pytest.param(SIGNATURE + b"\x21\x13", 13, 14, id="transport 3"),
        pytest.param(SIGNATURE + b"\x21\x11\x00\x0b", 14, 16, id="too short for IPv4"),
        pytest.param(SIGNATURE + b"\x21\x22\x00\x23", 14, 16, id="too short for IPv6"),
        pytest.param(SIGNATURE + b"\x21\x31\x00\xd7", 14, 16, id="too short for UNIX"),
        pytest.param(SIGNATURE + b"\x21\x11\x10\x01", 14, 16, id="above the limit"),
        pytest.param(SIGNATURE + b"\x21\x11\x11", 14, 15, id="above the limit by its high byte"),
        pytest.param(SIGNATURE + b"\x20\x00\xff\xff", 14, 15, id="LOCAL above the limit"),
        pytest.param(SIGNATURE + b"\x21\x11\x00\x0d", 14, 16, id="one byte behind the addresses"),
        pytest.param(SIGNATURE + b"\x21\x11\x00\x10" + INET + b"\1\0\2", 29, 31, id="TLV past the end"),
        pytest.param(SIGNATURE + b"\x21\x11\x00\x10" + INET + b"\1\1", 29, 30, id="TLV past the end by its high byte"),
        pytest.param(SIGNATURE + b"\x21\x11\x00\x14" + INET + b"\1\0\3", 29, 31, id="two bytes behind the last TLV"),
        pytest.param(SIGNATURE + b"\x21\x11\x00\x20" + INET + b"\3\0\5", 29, 31, id="checksum of 5 bytes"),
        pytest.param(SIGNATURE + b"\x21\x11\x00\x20" + INET + b"\3\0\0", 29, 31, id="checksum of no bytes"),
        pytest.param(SIGNATURE + b"\x21\x11\x02\x20" + INET + b"\3\1", 29, 30, id="checksum of 256 bytes or more"),
        pytest.param(SIGNATURE + b"\x21\x11\x00\x12" + INET + b"\3", 28, 29, id="no room for a checksum"),
        pytest.param(SIGNATURE + b"\x21\x11\x00\x15" + INET + b"\3", 28, 29, id="checksum leaves two bytes"),
        pytest.param(SIGNATURE + b"\x21\x11\x01\x20" + INET + b"\5\0\x81", 29, 31, id="UNIQUE_ID of 129 bytes"),
    ],
)
def test_v2_rejects_as_soon_as_the_bytes_prove_it(data: bytes, offset: int, proven_by: int) -> None:
    data = data.ljust(proven_by, b"\0")
    for end in range(proven_by):
        with pytest.raises(IncompleteHeader):
            decode(data[:end])
    for rest in (b"", bytes(5000)):
        with pytest.raises(InvalidHeader) as caught:
            decode(data[:proven_by] + data[proven_by:] + rest)
        assert caught.value.offset == offset
        assert caught.value.section.startswith("PP 2.2")


def test_v2_rejects_a_second_checksum() -> None:
    data = header_of(PROXY_TCP4, INET + tlv(3, bytes(4)) + tlv(3, bytes(4)))
    for end in (36, len(data)):
        with pytest.raises(InvalidHeader, match="second CRC32C") as caught:
            decode(data[:end])
        assert caught.value.offset == 35


def test_v2_tells_other_protocols_from_broken_headers() -> None:
    with pytest.raises(NotProxyHeader):
        decode(b"\r\nGET / HTTP/1.0")
    with pytest.raises(NotProxyHeader):
        decode(b"\x16\x03\x01")


def test_v2_keeps_all_tlvs_in_order_and_raw() -> None:
    tlvs = [(0xFF, b""), (1, b"h2"), (1, b"http/1.1"), (4, bytes(300)), (0, b"\0"), (0xE7, b"\xff"), (0x30, b"\xff")]
    header, _ = decode(header_of(PROXY_TCP4, INET + b"".join(tlv(*each) for each in tlvs)))
    assert header.tlvs == tuple(tlvs)
    assert header.alpn == b"h2"
    assert header.tlv(0xE7) == b"\xff"
    assert header.tlv(0xE8) is None


@pytest.mark.parametrize("position", range(3))
def test_v2_verifies_a_checksum_wherever_it_stands(position: int) -> None:
    parts = [tlv(1, b"h2"), tlv(0xE0, b"odd")]
    parts.insert(position, tlv(3, bytes(4)))
    data = checksummed(header_of(PROXY_TCP4, INET + b"".join(parts)))
    assert decode(data + b"payload")[0].crc32c == slow_crc32c(data.replace(decode(data)[0].tlv(3) or b"", bytes(4)))
    for at in range(16, len(data)):
        if at == 28 + sum(map(len, parts[:position])) or data[at - 1 : at + 1] == b"\0":
            continue
        broken = bytearray(data)
        broken[at] ^= 1
        with pytest.raises((InvalidHeader, IncompleteHeader)):
            decode(bytes(broken))


def test_v2_checksum_verification_can_be_turned_off() -> None:
    data = header_of(PROXY_TCP4, INET + tlv(3, b"\1\2\3\4"))
    with pytest.raises(InvalidHeader, match=r"the CRC32C says 0x01020304, the bytes have 0x.* \(PP 2\.2\.3\)"):
        decode(data)
    assert decode(data, verify_checksum=False)[0].crc32c == 0x01020304


@pytest.mark.parametrize(
    ("block", "flag", "tlvs"),
    [
        (tlv(1, b"h2") + b"\0", Tolerance.TLV_REMAINDER, ((1, b"h2"),)),
        (b"\1\2", Tolerance.TLV_REMAINDER, ()),
        (tlv(5, bytes(129)), Tolerance.LONG_UNIQUE_ID, ((5, bytes(129)),)),
    ],
)
def test_v2_tolerates_a_named_mistake_only_when_told(
    block: bytes, flag: Tolerance, tlvs: tuple[tuple[int, bytes], ...]
) -> None:
    data = header_of(PROXY_TCP4, INET + block)
    with pytest.raises(InvalidHeader):
        decode(data)
    with pytest.raises(InvalidHeader):
        decode(data, tolerate=~flag)
    assert decode(data, tolerate=flag)[0].tlvs == tlvs
    assert_only_the_whole_is_a_header(data, flag)


def test_v2_checksum_may_be_followed_by_a_tolerated_remainder() -> None:
    data = checksummed(header_of(PROXY_TCP4, INET + tlv(3, bytes(4)) + b"\0"))
    assert_only_the_whole_is_a_header(data, Tolerance.TLV_REMAINDER)


def test_v2_takes_4096_bytes_by_default_and_65535_at_most() -> None:
    block = INET + tlv(4, bytes(4096 - 12 - 3))
    assert decode(header_of(PROXY_TCP4, block))[1] == 16 + 4096
    with pytest.raises(InvalidHeader, match="4097 bytes announced; the limit is 4096"):
        decode(header_of(PROXY_TCP4, INET + tlv(4, bytes(4097 - 12 - 3))))
    largest = header_of(PROXY_TCP4, INET + tlv(4, bytes(65535 - 12 - 3)))
    assert decode(largest, max_length=65535)[1] == 16 + 65535


@pytest.mark.parametrize("max_length", [-1, 215, 65536])
def test_a_limit_that_makes_no_sense_is_an_error(max_length: int) -> None:
    with pytest.raises(InvalidOption, match=f"max_length is {max_length}: it takes 216 bytes, .* to 65535"):
        decode(b"", max_length=max_length)


def test_v2_survives_the_most_tlvs_that_fit() -> None:
    header, _ = decode(header_of(PROXY_TCP4, INET + bytes(65523)), max_length=65535)
    assert header.tlvs == ((0, b""),) * 21841


@pytest.mark.parametrize("convert", [bytearray, memoryview, lambda data: memoryview(bytearray(data)).cast("b")])
def test_every_kind_of_buffer_is_read(convert: type[bytearray]) -> None:
    data = header_of(PROXY_TCP4, INET + tlv(1, b"h2"))
    assert decode(convert(data + b"payload")) == decode(data)
    assert decode_datagram(convert(data + b"payload"))[1] == b"payload"


def test_a_datagram_carries_its_own_header() -> None:
    header, payload = decode_datagram(header_of(b"\x21\x12", INET) + b"query")
    assert (header.transport, header.source, payload) == (Transport.DGRAM, Endpoint("192.0.2.1", 56324), b"query")
    assert decode_datagram(header_of(b"\x21\x12", INET))[1] == b""


@pytest.mark.parametrize("end", [0, 10, 16, 27])
def test_an_incomplete_header_in_a_datagram_is_invalid(end: int) -> None:
    with pytest.raises(InvalidHeader, match="before its header does") as caught:
        decode_datagram(header_of(b"\x21\x12", INET)[:end])
    assert caught.value.offset == end
