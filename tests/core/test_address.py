"""The address grammar: what every form means, its canonical text, and what an error tells."""

from __future__ import annotations

import ipaddress
import pickle
import socket
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from esockd_core._address import Address, parse_address
from esockd_core._errors import EsockdError, InvalidAddress


@pytest.mark.parametrize(
    ("given_value", "expected", "text"),
    [
        (5000, Address("loopback", port=5000), "5000"),
        ("5000", Address("loopback", port=5000), "5000"),
        (0, Address("loopback", port=0), "0"),
        ("00080", Address("loopback", port=80), "80"),
        ("tcp://5000", Address("loopback", port=5000), "5000"),
        ("tls://5000", Address("loopback", "tls", port=5000), "tls://5000"),
        ("*:5000", Address("everywhere", port=5000), "*:5000"),
        ("udp://*:53", Address("everywhere", "udp", port=53), "udp://*:53"),
        (("*", 5000), Address("everywhere", port=5000), "*:5000"),
        ("127.0.0.1:65535", Address("host", host="127.0.0.1", port=65535), "127.0.0.1:65535"),
        ("0.0.0.0:80", Address("host", host="0.0.0.0", port=80), "0.0.0.0:80"),
        ("Example.ORG:80", Address("host", host="example.org", port=80), "example.org:80"),
        ("my_host-1.local.:80", Address("host", host="my_host-1.local.", port=80), "my_host-1.local.:80"),
        ("bücher.example:80", Address("host", host="bücher.example", port=80), "bücher.example:80"),
        ("[::1]:5000", Address("host", host="::1", port=5000), "[::1]:5000"),
        ("[0:0:0::0:1]:5000", Address("host", host="::1", port=5000), "[::1]:5000"),
        ("[FE80::1%eth0]:5000", Address("host", host="fe80::1%eth0", port=5000), "[fe80::1%eth0]:5000"),
        ("[::ffff:192.0.2.1]:5000", Address("host", host="192.0.2.1", port=5000), "192.0.2.1:5000"),
        ("dtls://[::]:5684", Address("host", "dtls", host="::", port=5684), "dtls://[::]:5684"),
        (("::1", 5000), Address("host", host="::1", port=5000), "[::1]:5000"),
        (("[::1]", 5000), Address("host", host="::1", port=5000), "[::1]:5000"),
        (("localhost", 5000), Address("host", host="localhost", port=5000), "localhost:5000"),
        ("unix:/run/x.sock", Address("unix", "unix", path="/run/x.sock"), "unix:/run/x.sock"),
        ("unix:///run/x.sock", Address("unix", "unix", path="/run/x.sock"), "unix:/run/x.sock"),
        ("tcp://unix:/run/x.sock", Address("unix", "unix", path="/run/x.sock"), "unix:/run/x.sock"),
        ("tls://unix:/run/x.sock", Address("unix", "tls", path="/run/x.sock"), "tls://unix:/run/x.sock"),
        ("unix:x.sock", Address("unix", "unix", path="x.sock"), "unix:x.sock"),
        ("unix:/tmp/a://b:c", Address("unix", "unix", path="/tmp/a://b:c"), "unix:/tmp/a://b:c"),
        ("unix:@name", Address("unix", "unix", path="@name"), "unix:@name"),
        (Path("/run/x.sock"), Address("unix", "unix", path="/run/x.sock"), "unix:/run/x.sock"),
        (Path("@name"), Address("unix", "unix", path="./@name"), "unix:./@name"),
        ("systemd:web", Address("systemd", name="web"), "systemd:web"),
        ("udp://systemd:dns", Address("systemd", "udp", name="dns"), "udp://systemd:dns"),
        ("fd:0", Address("fd", fd=0), "fd:0"),
        ("tls://fd:3", Address("fd", "tls", fd=3), "tls://fd:3"),
    ],
)
def test_every_form_is_read_and_written_in_its_canonical_text(
    given_value: object, expected: Address, text: str
) -> None:
    address = parse_address(given_value)
    assert address == expected
    assert str(address) == text
    assert parse_address(text) == address
    assert hash(parse_address(text)) == hash(address)


@pytest.mark.parametrize(
    ("given_value", "told"),
    [
        (65536, "port 65536 is out of range: 0 to 65535"),
        (-1, "port -1 is out of range"),
        ("70000", "address is '70000': port 70000 is out of range"),
        ("9" * 5000, "is out of range"),
        ("host:99999", "port 99999 is out of range"),
        (("host", 65536), "address is ('host', 65536): port 65536 is out of range"),
        ("localhost", 'the port is missing. Write "localhost:5000".'),
        ("127.0.0.1", 'the port is missing. Write "127.0.0.1:5000".'),
        ("local host", "the port is missing. Write 5000, "),
        ("80x", "address is '80x': a port is a number from 0 to 65535."),
        ("5_000", "a port is a number from 0 to 65535"),
        ("", "the port is missing"),
        ("[::1]", 'the port is missing. Write "[::1]:5000"'),
        ("[::1]5000", 'the port is missing. Write "[::1]:5000"'),
        ("host:", 'port "" is not a number'),
        ("host:http", 'port "http" is not a number'),
        ("host:+80", 'port "+80" is not a number'),
        ("host: 80", 'port " 80" is not a number'),
        ("\u0665\u0660", 'port "\u0665\u0660" is not a number'),
        (":5000", 'the host is empty. Write "*:5000" to listen everywhere, or 5000 for loopback only'),
        (("", 5000), "the host is empty"),
        ("::1:5000", 'an IPv6 address needs brackets. Did you mean "[::1]:5000"?'),
        ("fe80::1", 'an IPv6 address needs brackets. Did you mean "[fe80::1]:5000"?'),
        ("[::1", "the bracket is not closed"),
        ("[127.0.0.1]:80", "brackets are for IPv6 addresses only"),
        ("[::g]:80", '"::g" is not an IPv6 address'),
        ("[fe80::1%]:80", '"fe80::1%" is not an IPv6 address'),
        ("[fe80::1%a b]:80", '"a b" is not the name or number of a network interface'),
        ("256.0.0.1:80", '"256.0.0.1" is not an IPv4 address'),
        ("127.1:80", '"127.1" is not an IPv4 address'),
        ("0x7f.1:80", '"0x7f.1" is not an IPv4 address'),
        ("\uff11.0.0.1:80", "is not an IPv4 address"),
        ("a b:80", '"a b" is neither a host name nor an IP address'),
        ("-a:80", "neither a host name"),
        ("a..b:80", "neither a host name"),
        ("a" * 64 + ":80", "neither a host name"),
        ("a." * 127 + "a:80", "neither a host name"),
        ("user@host:80", "neither a host name"),
        ("tsl://5000", 'the scheme "tsl" is unknown: it is tcp, tls, udp or dtls. Did you mean "tls://5000"?'),
        ("TLS://5000", 'Did you mean "tls://5000"?'),
        ("gopher://5000", 'the scheme "gopher" is unknown: it is tcp, tls, udp or dtls.'),
        ("://5000", 'the scheme "" is unknown'),
        ("tls:5000", 'after "tls" comes "://". Did you mean "tls://5000"?'),
        ("udp:5000", 'after "udp" comes "://".'),
        ("unix:", "the path is empty"),
        ("unix:@", "the path is empty"),
        ("unix://run/x", "after unix:// comes an absolute path"),
        ("unix:/" + "x" * 107, "the path has 108 bytes; a Unix socket's has at most 107"),
        ("unix:/a\0b", "the path holds a NUL"),
        ("unix:/\ud800", "no file name can hold"),
        ("udp://unix:/run/x", "Unix sockets are served as streams only"),
        ("systemd:", "after systemd: comes the FileDescriptorName"),
        ("systemd:a:b", "after systemd: comes the FileDescriptorName"),
        ("fd:", "after fd: comes the number of an open file descriptor"),
        ("fd:-1", "after fd: comes the number"),
        ("fd:9999999999", "after fd: comes the number"),
        (True, "address is True: it takes a port, a text"),
        (None, "address is None: it takes a port, a text"),
        (5000.0, "address is 5000.0: it takes a port"),
        (b"5000", "address is b'5000': it takes a port"),
        (("host", True), "address is ('host', True): it takes a port"),
        (("host", 80, 0), "a pair (host, port)"),
    ],
)
def test_what_is_no_address_is_refused_with_what_was_given_and_what_is_allowed(given_value: object, told: str) -> None:
    with pytest.raises(InvalidAddress) as refusal:
        parse_address(given_value)
    assert told in str(refusal.value)
    assert isinstance(refusal.value, EsockdError)
    assert isinstance(refusal.value, ValueError)


def test_an_address_is_returned_as_it_is() -> None:
    address = parse_address(5000)
    assert parse_address(address) is address


def test_the_transport_says_datagrams_or_stream_and_whether_encrypted() -> None:
    table = {text: parse_address(text) for text in ("5000", "tls://5000", "udp://5000", "dtls://5000", "unix:/x")}
    assert {text: (a.is_datagram, a.is_encrypted) for text, a in table.items()} == {
        "5000": (False, False),
        "tls://5000": (False, True),
        "udp://5000": (True, False),
        "dtls://5000": (True, True),
        "unix:/x": (False, False),
    }


@pytest.mark.parametrize(
    ("plain", "encrypted"),
    [("*:1", "tls://*:1"), ("udp://1", "dtls://1"), ("unix:/x", "tls://unix:/x"), ("tls://1", "tls://1")],
)
def test_encrypted_gives_the_same_place_with_tls_or_dtls(plain: str, encrypted: str) -> None:
    assert parse_address(plain).encrypted() == parse_address(encrypted)


def test_a_socket_is_an_address_whose_text_is_where_it_is_bound() -> None:
    with socket.create_server(("127.0.0.1", 0)) as stream, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
        datagram.bind(("127.0.0.1", 0))
        assert str(parse_address(stream)) == f"127.0.0.1:{stream.getsockname()[1]}"
        assert str(parse_address(datagram)) == f"udp://127.0.0.1:{datagram.getsockname()[1]}"
        assert parse_address(stream) == parse_address(stream)
        assert parse_address(stream) != parse_address(datagram)
        assert len({parse_address(stream), parse_address(stream)}) == 1


def test_the_text_of_an_unbound_or_closed_socket_says_so() -> None:
    sock = socket.socket(socket.AF_UNIX)
    address = parse_address(sock)
    assert str(address) == f"an unnamed socket (fd {sock.fileno()})"
    sock.close()
    assert str(address) == "a closed socket"
    with pytest.raises(InvalidAddress, match="the socket is closed"):
        parse_address(sock)


def test_addresses_can_be_pickled() -> None:
    address = parse_address("tls://[::1]:5000")
    assert pickle.loads(pickle.dumps(address)) == address


ports = st.integers(0, 65535)
labels = st.from_regex(r"[a-z][a-z0-9_-]{0,20}", fullmatch=True)
host_names = st.lists(labels, min_size=1, max_size=4).map(".".join)
paths = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=26)


@given(ports, st.ip_addresses())
def test_ip_addresses_of_both_kinds_come_back_from_their_text(
    port: int, ip: ipaddress.IPv4Address | ipaddress.IPv6Address
) -> None:
    text = f"[{ip}]:{port}" if isinstance(ip, ipaddress.IPv6Address) else f"{ip}:{port}"
    address = parse_address(text)
    assert address == parse_address((str(ip), port)) == parse_address(str(address))
    assert ipaddress.ip_address(str(address.host)) == (getattr(ip, "ipv4_mapped", None) or ip)
    assert address.port == port


@given(ports, host_names, st.sampled_from(["", "tls://", "udp://", "dtls://"]))
def test_host_names_come_back_from_their_text(port: int, host: str, scheme: str) -> None:
    assume(host not in ("tcp", "tls", "udp", "dtls", "unix", "fd", "systemd"))
    address = parse_address(f"{scheme}{host}:{port}")
    assert (address.host, address.port) == (host, port)
    assert str(address) == f"{scheme}{host}:{port}"


@given(paths)
def test_unix_paths_come_back_from_their_text(path: str) -> None:
    assume(path != "@")
    assume(not path.startswith("//"))
    address = parse_address(f"unix:{path}")
    assert address.path == path
    assert parse_address(str(address)) == address


grammar_pieces = st.lists(
    st.sampled_from([*"0159:[]*%@/.-_ax", "://", "tls", "unix", "fd", "systemd", "::1", "65536", "é", "\0", " "]),
    max_size=8,
).map("".join)


@given(st.one_of(st.text(), grammar_pieces))
def test_any_text_is_an_address_that_comes_back_from_its_text_or_an_invalid_address(text: str) -> None:
    try:
        address = parse_address(text)
    except InvalidAddress:
        return
    assert parse_address(str(address)) == address
    assert str(parse_address(str(address))) == str(address)


@given(st.one_of(st.none(), st.floats(), st.binary(), st.lists(ports), st.tuples(st.text(), st.integers())))
def test_any_other_object_is_an_address_or_an_invalid_address(value: object) -> None:
    try:
        assert isinstance(parse_address(value), Address)
    except InvalidAddress:
        return
