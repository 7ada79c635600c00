"""The codec against slow, obvious models, and the three answers proven byte by byte."""

from __future__ import annotations

import ipaddress
import re
import struct
from functools import partial
from socket import AF_INET, AF_INET6, inet_ntop
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esockd_proxyproto import (
    Command,
    Decoder,
    Endpoint,
    IncompleteHeader,
    InvalidHeader,
    ProxyHeader,
    Tlv,
    Tolerance,
    Transport,
    UnixEndpoint,
    decode,
    encode,
)
from esockd_proxyproto._options import Options
from esockd_proxyproto._v1_line import read_line
from esockd_proxyproto._v2 import read_fixed

if TYPE_CHECKING:
    from collections.abc import Callable

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"

ports = st.integers(0, 65535)
ipv4 = st.builds(Endpoint, st.ip_addresses(v=4).map(str), ports)
ipv6 = st.builds(Endpoint, st.ip_addresses(v=6).map(str), ports)
unix = st.builds(UnixEndpoint, st.binary(max_size=108).filter(lambda path: b"\0" not in path))
tlvs = st.lists(
    st.builds(Tlv, st.integers(0, 255).filter(lambda type_: type_ not in {3, 5}), st.binary(max_size=40)), max_size=5
)
transports = st.sampled_from([Transport.STREAM, Transport.DGRAM])
tolerances = st.sampled_from([Tolerance.NONE, *Tolerance, ~Tolerance.NONE])


def canonical(header: ProxyHeader) -> ProxyHeader:
    return decode(encode(header))[0]


def headers(version: int, endpoints: st.SearchStrategy[Any]) -> st.SearchStrategy[ProxyHeader]:
    fields = {"source": endpoints, "destination": endpoints}
    if version == 2:
        fields |= {"transport": transports, "tlvs": tlvs}

    def build(arguments: dict[str, Any]) -> ProxyHeader:
        return canonical(ProxyHeader(version, **arguments))

    return st.fixed_dictionaries(fields).map(build)


v1_headers = headers(1, ipv4) | headers(1, ipv6) | st.just(ProxyHeader(1))
v2_headers = (
    headers(2, ipv4)
    | headers(2, ipv6)
    | headers(2, unix)
    | st.tuples(st.sampled_from(Command), tlvs).map(lambda pair: ProxyHeader(2, pair[0], tlvs=pair[1]))
)


@given(header=v1_headers | v2_headers, rest=st.binary(max_size=20))
def test_what_is_written_is_what_is_read(header: ProxyHeader, rest: bytes) -> None:
    data = encode(header)
    assert decode(data + rest) == (header, len(data))


@given(header=v2_headers, rest=st.binary(max_size=20))
def test_a_checksum_changes_nothing_else(header: ProxyHeader, rest: bytes) -> None:
    data = encode(header, checksum=True)
    received, consumed = decode(data + rest)
    assert received.tlvs[:-1] == header.tlvs
    assert received.replace(tlvs=header.tlvs) == header
    assert consumed == len(data)
    assert encode(received) == data


@given(header=v2_headers, where=st.integers(min_value=16), flip=st.integers(1, 255))
def test_no_single_byte_can_change_under_a_checksum(header: ProxyHeader, where: int, flip: int) -> None:
    data = bytearray(encode(header, checksum=True))
    received = decode(bytes(data))[0]
    data[16 + where % (len(data) - 16)] ^= flip
    try:
        changed, _ = decode(bytes(data))
    except (InvalidHeader, IncompleteHeader):
        return
    # The framing itself may change so that no checksum is left to verify.
    assert changed.crc32c is None
    assert received.crc32c is not None


@given(header=v1_headers | v2_headers, checksum=st.booleans())
def test_every_strict_prefix_is_incomplete(header: ProxyHeader, checksum: bool) -> None:
    data = encode(header, checksum=checksum and header.version == 2)
    for end in range(len(data)):
        with pytest.raises(IncompleteHeader) as caught:
            decode(data[:end])
        assert 1 <= caught.value.missing <= len(data) - end


def v1_model(line: bytes) -> tuple[Endpoint, Endpoint] | bool:
    """PP 2.1, read by hand: two endpoints, or whether it is UNKNOWN."""
    head, ending, _ = line[:107].partition(b"\r\n")
    fields = head.split(b" ")
    if not ending or fields[0] != b"PROXY" or len(fields) < 2:
        return False
    if fields[1] == b"UNKNOWN":
        return True
    read: Any = {b"TCP4": ipaddress.IPv4Address, b"TCP6": ipaddress.IPv6Address}.get(fields[1])
    if read is None or len(fields) != 6 or b"%" in head:
        return False
    try:
        hosts = [read(field.decode("ascii")) for field in fields[2:4]]
    except ValueError:
        return False
    for port in fields[4:]:
        if not re.fullmatch(rb"[0-9]+", port) or str(int(port)).encode() != port or int(port) > 65535:
            return False
    texts = [inet_ntop(AF_INET if host.version == 4 else AF_INET6, host.packed) for host in hosts]
    return Endpoint(texts[0], int(fields[4])), Endpoint(texts[1], int(fields[5]))


octets = st.sampled_from(["0", "1", "9", "10", "99", "100", "255", "256", "00", "01", "1000", ""])
groups = st.sampled_from(["0", "1", "ff", "abc", "FFFF", "00a0", "12345", "", "1.2.3.4", "g"])
odd_addresses = st.one_of(
    st.lists(octets, min_size=3, max_size=5).map(".".join),
    st.lists(groups, min_size=1, max_size=9).map(":".join),
    st.sampled_from(["::", "::1", "1::", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7::", "::1.2.3.4", "1:2:3:4:5:6:1.2.3.4"]),
    st.ip_addresses().map(str),
)
odd_ports = st.sampled_from(["0", "1", "80", "65535", "65536", "99999", "100000", "00", "080", "+1", "1_0", "", "a"])
odd_lines = st.tuples(
    st.sampled_from(["TCP4", "TCP6", "UNKNOWN", "UDP4", "TCP"]), odd_addresses, odd_addresses, odd_ports, odd_ports
).map(lambda fields: ("PROXY " + " ".join(fields) + "\r\n").encode())


@given(line=odd_lines)
def test_v1_agrees_with_an_obvious_model(line: bytes) -> None:
    expected = v1_model(line)
    try:
        header, consumed = decode(line)
    except (InvalidHeader, IncompleteHeader):
        assert expected is False
        return
    assert consumed == len(line)
    assert expected == (True if header.source is None else (header.source, header.destination))


def v2_model(data: bytes) -> bool:
    """PP 2.2, read by hand: whether exactly these bytes are a header; the checksum is somebody else's."""
    if len(data) < 16 or data[:12] != SIGNATURE or data[12] not in {0x20, 0x21}:
        return False
    (length,) = struct.unpack("!H", data[14:16])
    if len(data) != 16 + length or length > 4096:
        return False
    if data[12] == 0x20:
        return True
    family, transport = divmod(data[13], 16)
    if family > 3 or transport > 2:
        return False
    if family == 0 or transport == 0:
        return True
    rest = data[16:]
    address_bytes = {1: 12, 2: 36, 3: 216}[family]
    if len(rest) < address_bytes:
        return False
    rest = rest[address_bytes:]
    checksums = 0
    while rest:
        if len(rest) < 3 or len(rest) < 3 + (rest[1] << 8 | rest[2]):
            return False
        size = rest[1] << 8 | rest[2]
        checksums += rest[0] == 3
        if (rest[0] == 3 and size != 4) or (rest[0] == 5 and size > 128) or checksums > 1:
            return False
        rest = rest[3 + size :]
    return True


def answer_of(read: Callable[[], tuple[object, int]]) -> object:
    """Whichever of the three answers reading gives, with all that it says."""
    try:
        return read()
    except IncompleteHeader as error:
        return error.missing
    except InvalidHeader as error:
        return type(error), error.reason, error.offset, error.section


@given(line=odd_lines | v1_headers.map(encode), rest=st.binary(max_size=20), tolerate=tolerances)
def test_v1_straight_and_careful_reading_agree(line: bytes, rest: bytes, tolerate: Tolerance) -> None:
    data = line + rest
    assert answer_of(partial(decode, data, tolerate=tolerate)) == answer_of(partial(read_line, data[:107], tolerate))


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("keyword", ["TCP4", "TCP6"])
def test_v1_straight_and_careful_reading_agree_at_the_limits_of_each_field(keyword: str, place: int) -> None:
    hosts = [f"1.2.{octet}.4" for octet in ["", "00", "01", "007", "1_0", *range(301), 999, 1000]]
    hosts += ["::", ":", "1::", "::1%lo", "::G", "::0001", "::00001", ":1" * 8, "1:" * 8, "1:" * 7 + "1"]
    hosts += ["0:" * 6 + "1.2.3.4", "00:" * 6 + "100.100.100.100", "ffff:" * 6 + "255.255.255.255"]
    ports = ["", "0", "00", "01", "1", "9", "10", "+1", "1_0", "9999", "65535", "65536", "70000", "99999", "100000"]
    for odd in hosts if place < 2 else ports:
        fields = ["1.2.3.4" if keyword == "TCP4" else "::1"] * 2 + ["1", "2"]
        fields[place] = odd
        line = f"PROXY {keyword} {' '.join(fields)}\r\n".encode()
        assert answer_of(partial(decode, line)) == answer_of(partial(read_line, line, Tolerance.NONE))


@given(
    block=st.binary(min_size=36, max_size=36),
    kind=st.sampled_from([b"\x21\x11", b"\x21\x12", b"\x21\x21", b"\x21\x22"]),
)
def test_v2_writes_every_address_as_inet_ntop_does(block: bytes, kind: bytes) -> None:
    family, size = (AF_INET, 4) if kind[1] < 0x20 else (AF_INET6, 16)
    block = block[: 2 * size + 4]
    header, _ = decode(SIGNATURE + kind + struct.pack("!H", len(block)) + block)
    ports = struct.unpack("!HH", block[-4:])
    assert header.source == Endpoint(inet_ntop(family, block[:size]), ports[0])
    assert header.destination == Endpoint(inet_ntop(family, block[size : 2 * size]), ports[1])


@st.composite
def odd_binaries(draw: st.DrawFn) -> bytes:
    """Headers of version 2 that are nearly right."""
    kind = draw(st.sampled_from([b"\x21\x11", b"\x21\x11", b"\x21\x22", b"\x20\x00", b"\x21\x00", b"\x21\x10"]))
    block = bytes({0x11: 12, 0x22: 36}.get(kind[1], 0))
    for _ in range(draw(st.integers(0, 3))):
        size = draw(st.sampled_from([0, 1, 2, 3, 4, 5, 127, 128, 129, 255, 256, 300]))
        type_ = draw(st.sampled_from([1, 3, 4, 5, 0x20, 0xFF]))
        block += struct.pack("!BH", type_, size) + bytes(max(0, size + draw(st.sampled_from([0, 0, 0, -1, 1, 2]))))
    block += bytes(draw(st.sampled_from([0, 0, 0, 1, 2])))
    length = max(0, len(block) + draw(st.sampled_from([0, 0, 0, 0, -1, 1, 7])))
    return SIGNATURE + kind + struct.pack("!H", length) + block


@given(data=odd_binaries() | odd_binaries().flatmap(lambda data: st.just(data[: 16 + (data[14] << 8 | data[15])])))
def test_v2_agrees_with_an_obvious_model(data: bytes) -> None:
    try:
        _, consumed = decode(data, verify_checksum=False)
    except (InvalidHeader, IncompleteHeader):
        assert not any(v2_model(data[:end]) for end in range(16, len(data) + 1))
    else:
        assert v2_model(data[:consumed])


def v2_careful_answer(data: bytes, tolerate: Tolerance) -> object:
    """What the fixed part and the walk over the TLVs say of a header with addresses, without reading it."""
    options = Options(4096, verify_checksum=False, tolerate=tolerate)

    def read() -> tuple[object, int]:
        fixed = read_fixed(data, options)
        fixed.walk(options).advance(data, min(len(data), fixed.total))
        if len(data) < fixed.total:
            raise IncompleteHeader(fixed.total - len(data))
        return None, fixed.total

    return answer_of(read)


@given(data=odd_binaries() | v2_headers.map(encode), cut=st.integers(min_value=0), tolerate=tolerances)
def test_v2_straight_and_careful_reading_agree(data: bytes, cut: int, tolerate: Tolerance) -> None:
    part = data[: 1 + cut % len(data)]
    answer = answer_of(lambda: (None, decode(part, verify_checksum=False, tolerate=tolerate)[1]))
    assert answer == v2_careful_answer(part, tolerate)


@given(value=st.binary(max_size=60))
def test_the_checksum_agrees_with_a_bitwise_one(value: bytes) -> None:
    header = ProxyHeader(source=Endpoint("192.0.2.1", 1), destination=Endpoint("192.0.2.2", 2), tlvs=[Tlv(4, value)])
    data = encode(header, checksum=True)
    crc = 0xFFFFFFFF
    for byte in data[:-4] + bytes(4):
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    assert decode(data)[0].crc32c == crc ^ 0xFFFFFFFF


V1_BYTES = sorted(b"PROXYTCP46UNKNOWN 0125689abfFg:.\r\n\t\0\xff")
V2_BYTES = sorted({*b"P", *SIGNATURE, *range(9), 11, 12, 15, 16, 17, 0x20, 0x21, 0x22, 36, 0x31, 0x80, 0x81, 216, 0xFF})


def missing_after(data: bytes, tolerate: Tolerance) -> int | None:
    """How many bytes are missing; 0 for a header, None for what cannot become one."""
    try:
        decode(data, verify_checksum=False, tolerate=tolerate)
    except IncompleteHeader as error:
        return error.missing
    except InvalidHeader:
        return None
    return 0


def assert_one_more_byte_proves_the_answer(data: bytes, alphabet: list[int], tolerate: Tolerance) -> None:
    """The answer for some bytes is right if it fits the answers for one byte more, for every byte.

    With ``missing`` right for all longer texts, it is right here when the best next byte leaves one less missing; and
    what is invalid has to stay so.
    """
    here = missing_after(data, tolerate)
    if here == 0:
        return
    nexts = [missing_after(data + bytes([byte]), tolerate) for byte in alphabet]
    possible = [missing for missing in nexts if missing is not None]
    if here is None:
        assert not possible
    else:
        assert min(possible) == here - 1


@given(line=odd_lines | v1_headers.map(encode), cut=st.integers(min_value=0), tolerate=tolerances)
def test_v1_answers_are_proven_by_one_more_byte(line: bytes, cut: int, tolerate: Tolerance) -> None:
    assert_one_more_byte_proves_the_answer(line[: cut % len(line)], V1_BYTES, tolerate)


@given(filler=st.sampled_from([b"x", b" ", b"\r", b"\n", b"\r\n"]), size=st.integers(80, 110), tolerate=tolerances)
def test_v1_answers_near_the_limit_are_proven_by_one_more_byte(filler: bytes, size: int, tolerate: Tolerance) -> None:
    assert_one_more_byte_proves_the_answer((b"PROXY UNKNOWN " + filler * size)[:size], V1_BYTES, tolerate)
    mapped = b"PROXY TCP6 " + (b"0:" * 6 + b"100.100.100.100 ") * 2 + b"1" + filler * 20
    long_mapped = b"PROXY TCP6 " + (b"ffff:" * 6 + b"100.100.100.100 ") * 2
    for line in (mapped, long_mapped):
        assert_one_more_byte_proves_the_answer(line[:size], V1_BYTES, tolerate)


@given(data=odd_binaries() | v2_headers.map(encode), cut=st.integers(min_value=0), tolerate=tolerances)
def test_v2_answers_are_proven_by_one_more_byte(data: bytes, cut: int, tolerate: Tolerance) -> None:
    assert_one_more_byte_proves_the_answer(data[: cut % len(data)], V2_BYTES, tolerate)


@given(data=odd_binaries() | odd_lines | st.binary(max_size=30), sizes=st.lists(st.integers(1, 40), min_size=1))
def test_the_decoder_answers_as_decode_does_however_the_bytes_arrive(data: bytes, sizes: list[int]) -> None:
    decoder, at, turn = Decoder(verify_checksum=False), 0, 0
    while at < len(data):
        at, piece = at + sizes[turn % len(sizes)], data[at : at + sizes[turn % len(sizes)]]
        turn += 1
        expected = missing_after(data[:at], Tolerance.NONE)
        if expected is None:
            with pytest.raises(InvalidHeader):
                decoder.feed(piece)
            return
        header = decoder.feed(piece)
        assert decoder.missing == expected
        if header is not None:
            whole, consumed = decode(data, verify_checksum=False)
            assert (header, decoder.trailing) == (whole, data[consumed:at])
            return
