"""The incremental decoder: the same answers, however the bytes arrive."""

from __future__ import annotations

import pytest

from esockd_proxyproto import (
    Command,
    Decoder,
    Endpoint,
    HeaderComplete,
    InvalidHeader,
    InvalidOption,
    ProxyHeader,
    Tlv,
    Tolerance,
    UnixEndpoint,
    decode,
    encode,
)

SOURCE, DESTINATION = Endpoint("192.0.2.1", 56324), Endpoint("198.51.100.7", 443)
HEADERS = [
    encode(ProxyHeader(1, source=SOURCE, destination=DESTINATION)),
    encode(ProxyHeader(1)),
    encode(ProxyHeader(source=SOURCE, destination=DESTINATION)),
    encode(ProxyHeader(source=SOURCE, destination=DESTINATION, tlvs=[Tlv(1, b"h2"), Tlv(5, b"x")]), checksum=True),
    encode(ProxyHeader(source=UnixEndpoint("/a"), destination=UnixEndpoint("/b"))),
    encode(ProxyHeader(command=Command.LOCAL), checksum=True),
]


@pytest.mark.parametrize("data", HEADERS)
@pytest.mark.parametrize("piece_bytes", [1, 2, 3, 7, 1000])
def test_a_header_in_pieces_is_the_header_whole(data: bytes, piece_bytes: int) -> None:
    decoder = Decoder()
    stream = data + b"hello"
    for at in range(0, len(stream), piece_bytes):
        header = decoder.feed(stream[at : at + piece_bytes])
        if header is not None:
            break
        assert decoder.header is None
        assert decoder.received == stream[: at + piece_bytes]
        assert decoder.trailing == b""
    else:
        pytest.fail("the header never came")
    assert header == decode(data)[0] == decoder.header
    assert at < len(data) <= at + piece_bytes
    assert decoder.trailing == stream[len(data) : at + piece_bytes]
    assert decoder.missing == 0
    assert decoder.received == b""


@pytest.mark.parametrize("data", HEADERS)
def test_reading_no_more_than_is_missing_never_reads_past_the_header(data: bytes) -> None:
    decoder, at, reads = Decoder(), 0, 0
    while decoder.header is None:
        assert decoder.missing > 0
        piece = data[at : at + decoder.missing]
        assert len(piece) == decoder.missing
        decoder.feed(piece)
        at, reads = at + len(piece), reads + 1
    assert at == len(data)
    assert decoder.trailing == b""
    assert reads <= 12


@pytest.mark.parametrize("data", HEADERS)
def test_empty_pieces_change_nothing(data: bytes) -> None:
    decoder = Decoder()
    assert decoder.feed(b"") is None
    assert decoder.feed(data[:9]) is None
    assert decoder.feed(b"") is None
    assert decoder.feed(data[9:]) == decode(data)[0]


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"PROXY TCP4 1.1.1.1 2.2.2.2 1 65536\r\n",
        HEADERS[2][:12] + b"\x31",
        HEADERS[3][:29] + b"\xff\xff" + HEADERS[3][31:],
        HEADERS[3][:-1] + b"\xee",
    ],
)
def test_every_piece_size_finds_the_same_fault_at_the_same_byte(data: bytes) -> None:
    with pytest.raises(InvalidHeader) as expected:
        decode(data)
    for piece_bytes in (1, 5, len(data)):
        decoder = Decoder()
        pieces = [data[at : at + piece_bytes] for at in range(0, len(data), piece_bytes)]
        with pytest.raises(InvalidHeader) as caught:
            list(map(decoder.feed, pieces))
        assert (caught.value.offset, caught.value.section) == (expected.value.offset, expected.value.section)
        with pytest.raises(InvalidHeader) as again:
            decoder.feed(b"more")
        assert again.value is caught.value


def test_a_wrong_tlv_is_found_before_the_rest_arrives() -> None:
    decoder = Decoder()
    decoder.feed(HEADERS[3][:28])
    with pytest.raises(InvalidHeader, match="claims"):
        decoder.feed(b"\1\xff")


def test_bytes_after_the_header_are_not_the_decoders() -> None:
    decoder = Decoder()
    decoder.feed(HEADERS[0] + b"a")
    with pytest.raises(HeaderComplete, match="the header is complete"):
        decoder.feed(b"b")
    assert decoder.trailing == b"a"


@pytest.mark.parametrize(
    ("data", "has_signature"),
    [
        (b"", False),
        (b"PROXY", False),
        (b"PROXY ", True),
        (HEADERS[2][:11], False),
        (HEADERS[2][:12], True),
        (HEADERS[0], True),
    ],
)
def test_a_signature_counts_when_it_is_whole(data: bytes, has_signature: bool) -> None:
    decoder = Decoder()
    decoder.feed(data)
    assert decoder.has_signature is has_signature


def test_the_decoder_keeps_its_options() -> None:
    assert Decoder(tolerate=Tolerance.LF_LINE_END).feed(b"PROXY UNKNOWN\n") == ProxyHeader(1)
    broken = HEADERS[3][:-1] + b"\xee"
    assert Decoder(verify_checksum=False).feed(broken) is not None
    with pytest.raises(InvalidHeader, match="the limit is 216"):
        Decoder(max_length=216).feed(HEADERS[2][:14] + b"\0\xd9")
    with pytest.raises(InvalidOption, match="max_length"):
        Decoder(max_length=65536)


def test_a_header_of_the_largest_size_may_dribble_in() -> None:
    """65,551 calls: a decoder that looked at every byte again each time would take minutes."""
    data = HEADERS[2][:14] + b"\xff\xff" + HEADERS[2][16:] + bytes(65523)
    decoder = Decoder(max_length=65535)
    for at in range(len(data) - 1):
        assert decoder.feed(data[at : at + 1]) is None
    header = decoder.feed(data[-1:])
    assert header is not None
    assert len(header.tlvs) == 21841
