"""The TLS engine against a client in memory: no socket, no event loop."""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import trustme

from esockd_core._options.certificate import TlsCertificate
from esockd_core._options.tls import TlsOptions
from esockd_core._options.upstream_tls import UpstreamTlsOptions
from esockd_core._tls.engine import TAKE_BYTES, TlsEngine
from esockd_core._tls.facts import describe_tls, format_name

if TYPE_CHECKING:
    from pathlib import Path

AUTHORITY = trustme.CA()


class Client:
    """The other side, with a wire of its own."""

    def __init__(self, context: ssl.SSLContext, server_name: str | None = "localhost") -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=server_name)


@pytest.fixture
def certfile(tmp_path: Path) -> Path:
    file = tmp_path / "server.pem"
    AUTHORITY.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(file))
    return file


def client_context(**changes: object) -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    for name, value in changes.items():
        setattr(context, name, value)
    return context


def shake(engine: TlsEngine, client: Client, piece: int = 65_536) -> bytes:
    """Finish the handshake, handing the client's bytes over in pieces; give plaintext that came with it."""
    plaintext = b""
    for _ in range(10):
        with suppress(ssl.SSLWantReadError):
            client.tls.do_handshake()
        sent = client.outgoing.read()
        for at in range(0, len(sent), piece):
            plaintext += engine.feed(sent[at : at + piece])
        client.incoming.write(engine.take())
        if engine.handshaken:
            with suppress(ssl.SSLWantReadError):
                client.tls.do_handshake()
            return plaintext
    raise AssertionError("the handshake does not end")


def connect(certfile: Path, **changes: object) -> tuple[TlsEngine, Client]:
    engine = TlsEngine(TlsOptions(certfile=certfile).build_context())
    client = Client(client_context(**changes))
    shake(engine, client)
    return engine, client


VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])


@VERSIONS
def test_bytes_cross_in_both_directions(certfile: Path, version: ssl.TLSVersion) -> None:
    engine, client = connect(certfile, maximum_version=version)
    client.tls.write(b"question")
    assert engine.feed(client.outgoing.read()) == b"question"
    client.incoming.write(engine.write(b"answer"))
    assert client.tls.read() == b"answer"


@VERSIONS
def test_a_handshake_succeeds_when_it_arrives_byte_by_byte(certfile: Path, version: ssl.TLSVersion) -> None:
    engine = TlsEngine(TlsOptions(certfile=certfile).build_context())
    client = Client(client_context(maximum_version=version))
    shake(engine, client, piece=1)
    assert engine.handshaken
    assert describe_tls(engine.tls).version == client.tls.version()


@pytest.mark.parametrize("size", [1, 16_384, 16_385, 300_000])
def test_large_data_crosses_whole_whatever_the_pieces(certfile: Path, size: int) -> None:
    engine, client = connect(certfile)
    data = bytes(index % 251 for index in range(size))
    client.incoming.write(engine.write(data))
    received = b""
    while len(received) < size:
        received += client.tls.read(65_536)
    assert received == data
    sent = 0
    while sent < size:
        sent += client.tls.write(data[sent:])
    sealed = client.outgoing.read()
    assert engine.feed(sealed[:1000]) + engine.feed(sealed[1000:]) == data


def test_neither_side_renegotiates(certfile: Path) -> None:
    """The engine would have to wait in the middle of a write."""
    for context in (TlsOptions(certfile=certfile).context, UpstreamTlsOptions(verify=False).context):
        assert context.options & ssl.OP_NO_RENEGOTIATION


def test_writing_nothing_sends_nothing(certfile: Path) -> None:
    engine, _ = connect(certfile)
    assert engine.write(b"") == b""


def test_several_small_records_in_one_piece_come_out_joined(certfile: Path) -> None:
    engine, client = connect(certfile)
    for part in (b"a", b"b", b"c"):
        client.tls.write(part)
    assert engine.feed(client.outgoing.read()) == b"abc"


def test_nothing_larger_than_two_records_is_put_through_a_memory_bio() -> None:
    """What a memory BIO once held is what it occupies while the connection lasts."""
    assert TAKE_BYTES <= 32_768  # and it is fed record by record


def test_data_behind_the_last_message_of_the_handshake_is_not_lost(certfile: Path) -> None:
    engine = TlsEngine(TlsOptions(certfile=certfile).build_context())
    client = Client(client_context())
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.do_handshake()
    engine.feed(client.outgoing.read())
    client.incoming.write(engine.take())
    client.tls.do_handshake()
    client.tls.write(b"at once")
    assert engine.feed(client.outgoing.read()) == b"at once"


@VERSIONS
def test_the_closure_of_the_peer_comes_behind_its_data(certfile: Path, version: ssl.TLSVersion) -> None:
    engine, client = connect(certfile, maximum_version=version)
    client.tls.write(b"last words")
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.unwrap()
    assert engine.feed(client.outgoing.read()) == b"last words"
    assert engine.peer_finished
    assert engine.error is None


def test_our_closure_leaves_the_other_direction_open(certfile: Path) -> None:
    engine, client = connect(certfile)
    client.incoming.write(engine.write(b"last words") + engine.finish())
    assert client.tls.read() == b"last words"
    assert client.tls.read() == b""
    client.tls.write(b"still talking")
    assert engine.feed(client.outgoing.read()) == b"still talking"
    assert not engine.peer_finished


def test_both_sides_may_close_at_the_same_time(certfile: Path) -> None:
    engine, client = connect(certfile)
    closing = engine.finish()
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.unwrap()
    client.incoming.write(closing)
    assert engine.feed(client.outgoing.read()) == b""
    assert engine.peer_finished


def test_what_comes_behind_a_closure_is_ignored(certfile: Path) -> None:
    engine, client = connect(certfile)
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.unwrap()
    assert engine.feed(client.outgoing.read() + b"garbage") == b""
    assert engine.feed(b"more garbage") == b""
    assert engine.error is None


def test_plain_text_on_a_tls_port_is_an_error_with_an_alert_for_the_peer(certfile: Path) -> None:
    engine = TlsEngine(TlsOptions(certfile=certfile).build_context())
    assert engine.feed(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n") == b""
    assert engine.error is not None
    assert engine.error.reason == "HTTP_REQUEST"
    assert not engine.handshaken


def test_data_in_front_of_a_forged_record_is_still_returned(certfile: Path) -> None:
    engine, client = connect(certfile)
    client.tls.write(b"genuine")
    genuine = client.outgoing.read()
    client.tls.write(b"changed")
    forged = bytearray(client.outgoing.read())
    forged[-1] ^= 1
    assert engine.feed(genuine + bytes(forged)) == b"genuine"
    assert engine.error is not None
    assert engine.outgoing.pending


def test_what_is_written_before_the_handshake_is_sent_behind_it(certfile: Path) -> None:
    engine = TlsEngine(TlsOptions(certfile=certfile).build_context())
    client = Client(client_context())
    assert engine.write(b"too early") == b""
    assert engine.unwritten_bytes == 9
    shake(engine, client)
    client.incoming.write(engine.write(b", but sent"))
    assert client.tls.read() + client.tls.read() == b"too early, but sent"


def test_what_is_written_before_the_handshake_does_not_wait_for_more_than_its_end(certfile: Path) -> None:
    engine = TlsEngine(TlsOptions(certfile=certfile).build_context())
    client = Client(client_context())
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.do_handshake()
    engine.write(b"too early")
    engine.feed(client.outgoing.read())
    client.incoming.write(engine.take())
    client.tls.do_handshake()
    client.tls.write(b"at once")
    assert engine.feed(client.outgoing.read()) == b"at once"
    client.incoming.write(engine.take())
    assert client.tls.read() == b"too early"


def test_the_facts_name_version_cipher_name_and_application_protocol(certfile: Path) -> None:
    engine = TlsEngine(TlsOptions(certfile=certfile, alpn=("mqtt", "http/1.1")).build_context())
    context = client_context()
    context.set_alpn_protocols(["http/1.1", "mqtt"])
    shake(engine, Client(context))
    info = describe_tls(engine.tls)
    assert (info.version, info.server_name, info.alpn) == ("TLSv1.3", "localhost", "mqtt")
    assert info.cipher is not None
    assert info.cipher.startswith("TLS_")
    assert info.peer_certificate is None


def test_a_client_without_a_known_application_protocol_is_served_without_one(certfile: Path) -> None:
    engine = TlsEngine(TlsOptions(certfile=certfile, alpn=("mqtt",)).build_context())
    context = client_context()
    context.set_alpn_protocols(["h2"])
    shake(engine, Client(context))
    assert describe_tls(engine.tls).alpn is None


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("mail.example.org", "mail.example.org"),
        ("MAIL.example.org", "mail.example.org"),
        ("one.wild.example.org", "*.wild.example.org"),
        ("unknown.example.net", "localhost"),
        (None, "localhost"),
    ],
)
def test_each_server_name_gets_its_own_certificate(
    tmp_path: Path, certfile: Path, asked: str | None, shown: str
) -> None:
    others = {}
    for name in ("mail.example.org", "*.wild.example.org"):
        file = tmp_path / f"{name.strip('*.')}.pem"
        AUTHORITY.issue_cert(name).private_key_and_cert_chain_pem.write_to_path(str(file))
        others[name] = TlsCertificate(certfile=file)
    engine = TlsEngine(TlsOptions(certfile=certfile, sni=others).build_context())
    client = Client(client_context(check_hostname=False), asked)
    shake(engine, client)
    certificate = client.tls.getpeercert()
    assert certificate is not None
    assert certificate["subjectAltName"] == (("DNS", shown),)
    assert describe_tls(engine.tls).server_name == asked


def test_a_client_certificate_is_described(tmp_path: Path, certfile: Path) -> None:
    authority = tmp_path / "ca.pem"
    AUTHORITY.cert_pem.write_to_path(str(authority))
    engine = TlsEngine(TlsOptions(certfile=certfile, client_ca=authority).build_context())
    context = client_context()
    AUTHORITY.issue_cert(
        "sensor@example.org", "127.0.0.7", common_name="sensor, 7", organization_name="Example"
    ).configure_cert(context)
    shake(engine, Client(context))
    certificate = describe_tls(engine.tls).peer_certificate
    assert certificate is not None
    assert certificate.subject is not None
    assert certificate.subject.startswith("CN=sensor\\, 7,")
    assert certificate.common_name == "sensor, 7"
    assert certificate.issuer is not None
    assert "trustme" in certificate.issuer
    assert ("email", "sensor@example.org") in certificate.subject_alternative_names
    assert ("IP Address", "127.0.0.7") in certificate.subject_alternative_names
    assert certificate.not_before is not None
    assert certificate.not_after is not None
    assert certificate.not_before < certificate.not_after
    assert certificate.is_verified
    assert certificate.der is not None


@pytest.mark.parametrize("authority", [None, trustme.CA()])
def test_a_missing_or_foreign_client_certificate_is_refused(
    tmp_path: Path, certfile: Path, authority: trustme.CA | None
) -> None:
    file = tmp_path / "ca.pem"
    AUTHORITY.cert_pem.write_to_path(str(file))
    engine = TlsEngine(TlsOptions(certfile=certfile, client_ca=file).build_context())
    context = client_context()
    if authority is not None:
        authority.issue_cert("client@example.org").configure_cert(context)
    client = Client(context)
    with pytest.raises(AssertionError):
        shake(engine, client)
    assert engine.error is not None
    assert not engine.handshaken


def test_an_optional_client_certificate_may_be_missing(tmp_path: Path, certfile: Path) -> None:
    file = tmp_path / "ca.pem"
    AUTHORITY.cert_pem.write_to_path(str(file))
    engine = TlsEngine(TlsOptions(certfile=certfile, client_ca=file, verify="optional").build_context())
    shake(engine, Client(client_context()))
    assert describe_tls(engine.tls).peer_certificate is None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ((("countryName", "DE"),), "C=DE"),
        ((("organizationName", "Example, Inc."),), "O=Example\\, Inc."),
        ((("commonName", " # leading"),), "CN=\\ # leading"),
        ((("commonName", "#1 "),), "CN=\\#1\\ "),
        ((("commonName", 'a"+;<>\\b'),), 'CN=a\\"\\+\\;\\<\\>\\\\b'),
        ((("emailAddress", "a@example.org"),), "emailAddress=a@example.org"),
    ],
)
def test_a_distinguished_name_is_escaped_as_rfc_4514_says(name: tuple[tuple[str, str], ...], text: str) -> None:
    assert format_name((name,)) == text


def test_a_distinguished_name_is_written_last_part_first() -> None:
    name = ((("domainComponent", "org"),), (("domainComponent", "example"),), (("commonName", "a"), ("userId", "7")))
    assert format_name(name) == "CN=a+UID=7,DC=example,DC=org"
