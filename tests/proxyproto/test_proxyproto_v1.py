"""Version 1: what the specification allows, and every kind of thing it does not (PP 2.1)."""

from __future__ import annotations

import pytest

from esockd_proxyproto import (
    Command,
    Endpoint,
    Family,
    IncompleteHeader,
    InvalidHeader,
    NotProxyHeader,
    ProxyHeader,
    Tolerance,
    Transport,
    decode,
)

TCP4 = b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n"
LONGEST_TCP6 = b"PROXY TCP6 " + b" ".join([b":".join([b"ffff"] * 8)] * 2) + b" 65535 65535\r\n"


def test_v1_reads_tcp_over_ipv4() -> None:
    assert decode(TCP4) == (
        ProxyHeader(
            version=1,
            command=Command.PROXY,
            family=Family.INET,
            transport=Transport.STREAM,
            source=Endpoint("192.0.2.1", 56324),
            destination=Endpoint("198.51.100.7", 443),
        ),
        len(TCP4),
    )


def test_v1_reads_tcp_over_ipv6_and_writes_its_addresses_in_their_canonical_form() -> None:
    header, consumed = decode(b"PROXY TCP6 2001:DB8:0:0:0:0:0:1 ::FFFF:192.0.2.1 0 65535\r\nhello")
    assert (header.family, header.transport) == (Family.INET6, Transport.STREAM)
    assert header.source == Endpoint("2001:db8::1", 0)
    assert header.destination == Endpoint("::ffff:192.0.2.1", 65535)
    assert consumed == 58


@pytest.mark.parametrize(
    "line",
    [
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN \r\n",
        b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n",
        b"PROXY UNKNOWN \xff\0 \n \r \r\r\n",
        b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n",
    ],
)
def test_v1_ignores_what_follows_unknown_up_to_the_crlf(line: bytes) -> None:
    header, consumed = decode(line + b"\r\n")
    assert (header.version, header.family, header.transport) == (1, Family.UNSPEC, Transport.UNSPEC)
    assert (header.source, header.destination) == (None, None)
    assert consumed == len(line)


def test_v1_takes_the_longest_lines_of_the_specification() -> None:
    assert len(LONGEST_TCP6) == 104
    assert decode(LONGEST_TCP6)[1] == 104
    assert decode(b"PROXY UNKNOWN" + LONGEST_TCP6[10:])[1] == 107
    assert decode(b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n")[1] == 56


def test_v1_rejects_a_line_of_more_than_107_bytes_of_whatever_kind() -> None:
    mapped = b":".join([b"ffff"] * 6) + b":255.255.255.255"
    line = b"PROXY TCP6 " + mapped + b" " + mapped + b" 1 1\r\n"
    assert len(line) > 107
    with pytest.raises(InvalidHeader, match="within 107 characters"):
        decode(line)
    with pytest.raises(InvalidHeader, match="within 107 characters"):
        decode(b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n")


@pytest.mark.parametrize(
    ("line", "offset"),
    [
        pytest.param(b"proxy TCP4", 0, id="lower case"),
        pytest.param(b"PROXY\tTCP4", 5, id="tab"),
        pytest.param(b"PROXY  TCP4", 6, id="two blanks"),
        pytest.param(b"PROXY TCP5", 9, id="unknown protocol"),
        pytest.param(b"PROXY UDP4", 7, id="udp"),
        pytest.param(b"PROXY UNKNOWNX", 13, id="longer keyword"),
        pytest.param(b"PROXY UNKNOWN\n", 13, id="unknown with bare LF"),
        pytest.param(b"PROXY UNKNOWN\rX", 14, id="unknown with bare CR"),
        pytest.param(b"PROXY TCP4\r\n", 10, id="no addresses"),
        pytest.param(b"PROXY TCP4 256", 13, id="octet above 255"),
        pytest.param(b"PROXY TCP4 01", 12, id="octet with leading zero"),
        pytest.param(b"PROXY TCP4 1.2.3 ", 16, id="three octets"),
        pytest.param(b"PROXY TCP4 1.2.3.4.", 18, id="five octets"),
        pytest.param(b"PROXY TCP4 1..", 13, id="empty octet"),
        pytest.param(b"PROXY TCP4 ::1", 11, id="IPv6 under TCP4"),
        pytest.param(b"PROXY TCP4 a", 11, id="letters"),
        pytest.param(b"PROXY TCP4 \xd9\xa1", 11, id="digits of another script"),
        pytest.param(b"PROXY TCP4 1.1.1.1  2.2.2.2", 19, id="two blanks between fields"),
        pytest.param(b"PROXY TCP4 1.1.1.1\t", 18, id="tab between fields"),
        pytest.param(b"PROXY TCP4 1.1.1.1 2.2.2.2 65536", 31, id="port above 65535"),
        pytest.param(b"PROXY TCP4 1.1.1.1 2.2.2.2 123456", 32, id="port of six digits"),
        pytest.param(b"PROXY TCP4 1.1.1.1 2.2.2.2 -1", 27, id="negative port"),
        pytest.param(b"PROXY TCP4 1.1.1.1 2.2.2.2 +1", 27, id="signed port"),
        pytest.param(b"PROXY TCP4 1.1.1.1 2.2.2.2 01", 28, id="port with leading zero"),
        pytest.param(b"PROXY TCP4 1.1.1.1 2.2.2.2 1_0", 28, id="port with underscore"),
        pytest.param(b"PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n", 28, id="one port"),
        pytest.param(b"PROXY TCP4 1.1.1.1 2.2.2.2 1 1 \r\n", 30, id="blank before the CRLF"),
        pytest.param(b"PROXY TCP4 1.1.1.1 2.2.2.2 1 1\n", 30, id="bare LF"),
        pytest.param(b"PROXY TCP4 1.1.1.1 2.2.2.2 1 1\rX", 31, id="bare CR"),
        pytest.param(b"PROXY TCP6 1.", 12, id="IPv4 under TCP6"),
        pytest.param(b"PROXY TCP6 12345", 15, id="five hexadecimal digits"),
        pytest.param(b"PROXY TCP6 1:::", 14, id="three colons"),
        pytest.param(b"PROXY TCP6 1::2::", 16, id="two double colons"),
        pytest.param(b"PROXY TCP6 1:2:3:4:5:6:7:8:", 26, id="nine groups"),
        pytest.param(b"PROXY TCP6 1:2:3:4:5:6:7:8::", 26, id="double colon beside eight groups"),
        pytest.param(b"PROXY TCP6 fe80::1%", 18, id="zone"),
        pytest.param(b"PROXY TCP6 g", 11, id="not hexadecimal"),
        pytest.param(b"PROXY TCP6 :: :: 1 65536\r\n", 23, id="port above 65535 behind IPv6"),
        pytest.param(
            b"PROXY TCP6 " + (b"ffff:" * 6 + b"255.255.255.255 ") * 2 + b"655f", 101, id="too long before wrong"
        ),
        pytest.param(b"PROXY TCP6 : :: 1 1\r\n", 12, id="single colon"),
    ],
)
def test_v1_rejects_at_the_first_byte_that_proves_it(line: bytes, offset: int) -> None:
    with pytest.raises(IncompleteHeader):
        decode(line[:offset])
    for end in range(offset + 1, len(line) + 1):
        with pytest.raises(InvalidHeader) as caught:
            decode(line[:end])
        assert caught.value.offset == offset
        assert caught.value.section.startswith("PP 2.")


def test_v1_errors_say_what_was_given_and_what_is_allowed() -> None:
    with pytest.raises(InvalidHeader) as caught:
        decode(b"PROXY TCP4 1.1.1.1 2.2.2.2 65536 80\r\n")
    assert str(caught.value) == (
        "invalid PROXY protocol header at byte 31: b'6' where a port from 0 to 65535 in plain digits belongs (PP 2.1)"
    )


def test_v1_tells_other_protocols_from_broken_headers() -> None:
    with pytest.raises(NotProxyHeader):
        decode(b"POST / HTTP/1.1\r\n")
    with pytest.raises(InvalidHeader) as caught:
        decode(b"PROXY TCP9")
    assert not isinstance(caught.value, NotProxyHeader)


@pytest.mark.parametrize(
    ("prefix", "missing"),
    [
        (b"", 15),
        (b"PROXY", 10),
        (b"PROXY ", 9),
        (b"PROXY T", 15),
        (b"PROXY TCP4", 22),
        (b"PROXY TCP6", 12),
        (b"PROXY UNKNOWN", 2),
        (b"PROXY UNKNOWN\r", 1),
        (b"PROXY UNKNOWN x", 2),
        (b"PROXY UNKNOWN x\r", 1),
        (b"PROXY TCP4 1.2", 18),
        (b"PROXY TCP6 1:2:3:4:5:6:7", 11),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 1", 2),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 1\r", 1),
    ],
)
def test_v1_says_how_many_bytes_are_certainly_missing(prefix: bytes, missing: int) -> None:
    with pytest.raises(IncompleteHeader) as caught:
        decode(prefix)
    assert caught.value.missing == missing
    assert str(caught.value) == f"incomplete PROXY protocol header: at least {missing} more bytes are needed"


@pytest.mark.parametrize(
    ("line", "flag", "hosts", "ports"),
    [
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n", Tolerance.LF_LINE_END, ("1.1.1.1", "2.2.2.2"), (1, 2)),
        (b"PROXY TCP4  1.1.1.1   2.2.2.2 1  2  \r\n", Tolerance.EXTRA_BLANKS, ("1.1.1.1", "2.2.2.2"), (1, 2)),
        (b"PROXY TCP4 010.1.1.1 2.2.2.002 0080 00\r\n", Tolerance.LEADING_ZEROS, ("10.1.1.1", "2.2.2.2"), (80, 0)),
        (b"PROXY TCP4 ::1 2.2.2.2 1 2\r\n", Tolerance.MIXED_FAMILIES, ("::1", "2.2.2.2"), (1, 2)),
        (b"PROXY TCP6 1.1.1.1 ::2 1 2\r\n", Tolerance.MIXED_FAMILIES, ("1.1.1.1", "::2"), (1, 2)),
    ],
)
def test_v1_tolerates_a_named_mistake_only_when_told(
    line: bytes, flag: Tolerance, hosts: tuple[str, str], ports: tuple[int, int]
) -> None:
    with pytest.raises(InvalidHeader):
        decode(line)
    with pytest.raises(InvalidHeader):
        decode(line, tolerate=~flag)
    for end in range(len(line)):
        with pytest.raises(IncompleteHeader) as caught:
            decode(line[:end], tolerate=flag)
        assert end + caught.value.missing <= len(line)
    header, consumed = decode(line + b"\n", tolerate=flag)
    assert header.source == Endpoint(hosts[0], ports[0])
    assert header.destination == Endpoint(hosts[1], ports[1])
    assert header.family == (Family.INET6 if ":" in hosts[0] else Family.INET)
    assert consumed == len(line)


def test_v1_with_every_tolerance_still_reads_what_is_right() -> None:
    assert decode(TCP4, tolerate=~Tolerance.NONE) == decode(TCP4)
    assert decode(b"PROXY UNKNOWN\r\n", tolerate=~Tolerance.NONE) == decode(b"PROXY UNKNOWN\r\n")
    assert decode(b"PROXY UNKNOWN x\n", tolerate=Tolerance.LF_LINE_END)[1] == 16
