"""DTLS sessions in memory: against a client of OpenSSL's, over a good and a bad network, and against strangers."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from tests.core.dtls.peers import ADDRESS, Client, Network, Server, shake
from tests.core.tls_clients import AUTHORITY

from esockd_core._dtls.facts import describe_dtls
from esockd_core._dtls.hello import read_hello
from esockd_core._options.certificate import TlsCertificate
from esockd_core._options.dtls import DtlsOptions

if TYPE_CHECKING:
    from pathlib import Path

KEYS = {"sensor 7": b"k" * 32}


@pytest.fixture
def client_file(tmp_path: Path) -> Path:
    file = tmp_path / "client.pem"
    issued = AUTHORITY.issue_cert("sensor7.example.org", common_name="sensor 7")
    issued.private_key_and_cert_chain_pem.write_to_path(str(file))
    return file


def echo(server: Server, client: Client, message: bytes) -> list[bytes]:
    """What comes back for a message."""
    return [answer for datagram in server.feed(client.write(message)) for answer in client.feed(datagram)]


def test_a_session_carries_messages_both_ways_and_keeps_their_borders(dtls: DtlsOptions) -> None:
    server, client = Server(dtls), Client()
    assert shake(server, client).handshaken
    for size in (1, 100, 16_384):
        assert echo(server, client, b"x" * size) == [b"x" * size]


def test_the_facts_of_a_session_are_those_of_a_tls_connection(dtls: DtlsOptions) -> None:
    session = shake(Server(dtls), Client())
    facts = describe_dtls(session)
    assert facts.version == "DTLSv1.2"
    assert facts.cipher == session.tls.get_cipher_name() is not None
    assert (facts.server_name, facts.alpn, facts.peer_certificate, facts.psk_identity) == (None, None, None, None)


def test_the_preferred_protocol_that_the_client_offers_is_chosen(certificates: Path) -> None:
    options = DtlsOptions(certfile=certificates / "localhost.pem", alpn=("coap", "mqtt"))
    chosen = [describe_dtls(shake(Server(options), Client(alpn=given))).alpn for given in (("mqtt", "coap"), ("x",))]
    assert chosen == ["coap", None]


def test_a_client_gets_the_certificate_of_the_name_that_it_asks_for(certificates: Path) -> None:
    other = TlsCertificate(certfile=certificates / "other.example.org.pem")
    options = DtlsOptions(certfile=certificates / "localhost.pem", sni={"*.Example.org": other})
    for name, subject in (("OTHER.example.org", "other"), ("localhost", "localhost"), (None, "localhost")):
        client = Client(server_name=name, authority=certificates / "ca.pem")
        session = shake(Server(options), client)
        assert describe_dtls(session).server_name == name
        shown = client.tls.get_peer_certificate(as_cryptography=True)
        assert shown is not None
        assert subject in str(shown.extensions)


def test_a_server_name_that_no_host_has_is_not_taken_over(dtls: DtlsOptions) -> None:
    session = shake(Server(dtls), Client(server_name="a\x1b[31m b"))
    assert session.handshaken
    assert describe_dtls(session).server_name is None


def test_the_certificate_of_a_client_is_verified_and_told(certificates: Path, client_file: Path) -> None:
    options = DtlsOptions(certfile=certificates / "localhost.pem", client_ca=certificates / "ca.pem")
    server, client = Server(options), Client(certificate=client_file)
    shown = describe_dtls(shake(server, client)).peer_certificate
    assert shown is not None
    assert (shown.common_name, shown.is_verified) == ("sensor 7", True)
    assert ("DNS", "sensor7.example.org") in shown.subject_alternative_names
    assert echo(server, client, b"hello") == [b"hello"]


def test_a_client_without_a_certificate_is_refused_where_one_is_required(certificates: Path) -> None:
    options = DtlsOptions(certfile=certificates / "localhost.pem", client_ca=certificates / "ca.pem")
    client = Client()
    session = shake(Server(options), client)
    assert session.why_failed() == "peer did not return a certificate"
    assert "alert" in str(client.error)


def test_a_client_without_a_certificate_is_served_where_one_is_optional(certificates: Path) -> None:
    options = DtlsOptions(certfile=certificates / "localhost.pem", client_ca=certificates / "ca.pem", verify="optional")
    session = shake(Server(options), Client())
    assert session.handshaken
    assert describe_dtls(session).peer_certificate is None


@pytest.mark.parametrize("verify", ["required", "optional"])
def test_a_certificate_that_a_stranger_signed_is_refused(certificates: Path, tmp_path: Path, verify: Any) -> None:
    strange = tmp_path / "strange.pem"
    trustme.CA().issue_cert("sensor").private_key_and_cert_chain_pem.write_to_path(str(strange))
    options = DtlsOptions(certfile=certificates / "localhost.pem", client_ca=certificates / "ca.pem", verify=verify)
    client = Client(certificate=strange)
    session = shake(Server(options), client)
    assert not session.handshaken
    assert session.why_failed() == "certificate verify failed: unable to get local issuer certificate"
    assert "unknown ca" in str(client.error)


def test_a_client_proves_itself_by_a_key_that_both_know() -> None:
    server, client = Server(DtlsOptions(psk=KEYS)), Client(psk=(b"sensor 7", b"k" * 32))
    facts = describe_dtls(shake(server, client))
    assert facts.psk_identity == "sensor 7"
    assert facts.cipher is not None
    assert "PSK" in facts.cipher
    assert echo(server, client, b"hello") == [b"hello"]


def test_a_client_with_the_wrong_key_never_gets_in() -> None:
    server, client = Server(DtlsOptions(psk=KEYS)), Client(psk=(b"sensor 7", b"wrong" * 6))
    session = shake(server, client)
    assert not session.handshaken
    assert session.error is None  # what it sends is not genuine, and so passed over until the handshake is too late


@pytest.mark.parametrize("identity", [b"sensor 8", b"\xff\xfe"])
def test_a_client_with_an_unknown_identity_is_told(identity: bytes) -> None:
    client = Client(psk=(identity, b"k" * 32))
    session = shake(Server(DtlsOptions(psk=KEYS)), client)
    assert session.why_failed() == "psk identity not found"
    assert "unknown psk identity" in str(client.error)


def test_a_function_finds_keys_and_its_errors_are_kept() -> None:
    def find(identity: str) -> bytes | None:
        if identity == "broken":
            raise RuntimeError(identity)
        return KEYS.get(identity)

    options = DtlsOptions(psk=find)
    assert shake(Server(options), Client(psk=(b"sensor 7", b"k" * 32))).handshaken
    session = shake(Server(options), Client(psk=(b"broken", b"k" * 32)))
    assert not session.handshaken
    assert isinstance(session.notes.program_error, RuntimeError)


def test_a_function_that_finds_no_bytes_for_a_key_lets_nobody_in() -> None:
    find: Any = lambda identity: 5  # noqa: E731
    session = shake(Server(DtlsOptions(psk=find)), Client(psk=(b"sensor 7", bytes(5))))
    assert not session.handshaken
    assert isinstance(session.notes.program_error, TypeError)


def test_only_ciphers_with_authenticated_encryption_are_offered_by_default(dtls: DtlsOptions) -> None:
    known = [name for name in dtls.context.connect()[0].get_cipher_list() if not name.startswith("TLS_")]
    assert known
    assert all("GCM" in name or "CHACHA20" in name or "CCM" in name for name in known)
    client = Client(ciphers=b"ECDHE-ECDSA-AES256-SHA384")
    assert shake(Server(dtls), client).why_failed() == "no shared cipher"
    assert "handshake failure" in str(client.error)


def test_keys_and_certificates_serve_side_by_side(certificates: Path) -> None:
    options = DtlsOptions(certfile=certificates / "localhost.pem", psk=KEYS)
    assert shake(Server(options), Client(ciphers=b"ECDHE-ECDSA-AES128-GCM-SHA256")).handshaken
    assert shake(Server(options), Client(psk=(b"sensor 7", b"k" * 32), ciphers=b"PSK-AES128-GCM-SHA256")).handshaken


def test_a_large_certificate_goes_through_a_small_mtu(certificates: Path) -> None:
    options = DtlsOptions(certfile=certificates / "long-chain.pem", mtu=400)
    server, client = Server(options), Client(mtu=400)
    sizes: list[int] = []
    to_server = client.hello()
    while to_server:
        answers = [answer for datagram in to_server for answer in server.feed(datagram)]
        sizes += [len(answer) for answer in answers]
        for answer in answers:
            client.feed(answer)
        to_server = client.take()
    assert server.session is not None
    assert server.session.handshaken
    assert max(sizes) <= 400
    assert sum(sizes) > 20_000


class Pair:
    """A server and a client with a bad network between them."""

    def __init__(self, options: DtlsOptions, seed: int) -> None:
        self.server, self.client = Server(options), Client(mtu=400)
        self.there, self.back = Network(seed), Network(-seed - 1)
        self.sent = self.there.carry(self.client.hello())

    @property
    def is_open(self) -> bool:
        return self.client.handshaken and self.server.session is not None and self.server.session.handshaken

    def step(self) -> float | None:
        """Let pass what is on its way, and tell how long to wait then; None if something else is."""
        answers = [answer for datagram in self.sent for answer in self.server.feed(datagram)]
        session = self.server.session
        if session is not None and session.timeout() == 0:
            answers += session.handle_timeout()
        for answer in self.back.carry(answers) + ([] if answers else self.back.release()):
            self.client.feed(answer)
        again = self.client.handle_timeout() if self.client.timeout() == 0 else []
        to_server = self.client.take() + again
        self.sent = self.there.carry(to_server) + ([] if to_server else self.there.release())
        if self.sent or self.is_open:
            return None
        return min(wait for wait in (self.client.timeout(), session and session.timeout(), 1.0) if wait)


def test_every_handshake_gets_through_a_network_that_loses_doubles_and_reorders(dtls: DtlsOptions) -> None:
    pairs = [Pair(dtls, seed) for seed in range(40)]
    end = time.monotonic() + 45  # what is lost is sent again after 1, 2, 4 ... seconds, which OpenSSL counts itself
    while waiting := [pair for pair in pairs if not pair.is_open]:
        assert time.monotonic() < end
        waits = [pair.step() for pair in waiting]
        if None not in waits:
            time.sleep(min(wait for wait in waits if wait))
    for pair in pairs:
        sent = [b"%d" % number for number in range(100)]
        for datagram in pair.there.carry([pair.client.write(message) for message in sent]):
            pair.server.feed(datagram)
        received = pair.server.received
        assert len(received) == len(set(received)) > 50  # doubled ones come once (RFC 6347 section 4.1.2.6)
        assert set(received) <= set(sent)


def test_a_lost_end_of_the_handshake_is_sent_again(dtls: DtlsOptions) -> None:
    server, client = Server(dtls), Client()
    to_server = client.hello()
    for _ in range(2):
        answers = [answer for datagram in to_server for answer in server.feed(datagram)]
        for answer in answers:
            client.feed(answer)
        to_server = client.take()
    for datagram in to_server:
        server.feed(datagram)  # and its answer is lost
    assert server.session is not None
    assert server.session.handshaken
    assert not client.handshaken
    time.sleep(client.timeout() or 0)
    for answer in [answer for datagram in client.handle_timeout() for answer in server.feed(datagram)]:
        client.feed(answer)
    assert client.handshaken


def test_messages_come_in_the_order_in_which_they_arrive(dtls: DtlsOptions) -> None:
    server, client = Server(dtls), Client()
    shake(server, client)
    for datagram in reversed([client.write(b"%d" % number) for number in range(3)]):
        server.feed(datagram)
    assert server.received == [b"2", b"1", b"0"]


def test_several_records_in_one_datagram_are_several_messages(dtls: DtlsOptions) -> None:
    server, client = Server(dtls), Client()
    shake(server, client)
    server.feed(client.write(b"one") + client.write(b"two") + b"junk")
    assert server.received == [b"one", b"two"]


def test_a_session_ends_with_a_closure_alert_of_either_side(dtls: DtlsOptions) -> None:
    server, client = Server(dtls), Client()
    session = shake(server, client)
    [goodbye] = session.finish()
    client.feed(goodbye)
    assert client.is_closed
    assert session.finish() == []

    server, client = Server(dtls), Client()
    session = shake(server, client)
    for datagram in client.close():
        server.feed(datagram)
    assert session.peer_finished
    assert session.error is None


def test_a_session_that_is_not_open_yet_ends_without_a_word(dtls: DtlsOptions) -> None:
    server, client = Server(dtls), Client()
    for datagram in client.hello():
        for answer in server.feed(datagram):
            client.feed(answer)
    for datagram in client.take():
        server.feed(datagram)
    assert server.session is not None
    assert not server.session.handshaken
    assert server.session.finish() == []


@pytest.mark.parametrize(
    "cipher",
    [b"ECDHE-ECDSA-AES128-GCM-SHA256", b"ECDHE-ECDSA-CHACHA20-POLY1305", b"ECDHE-ECDSA-AES128-CCM", b"PSK-AES128-CCM8"],
)
def test_nothing_that_a_stranger_sends_ends_an_open_session(certificates: Path, cipher: bytes) -> None:
    ciphers = f"{cipher.decode()}:@SECLEVEL=0"
    server = Server(DtlsOptions(certfile=certificates / "localhost.pem", psk=KEYS, ciphers=ciphers))
    client = Client(ciphers=ciphers.encode(), psk=(b"sensor 7", b"k" * 32))
    session = shake(server, client)
    assert session.tls.get_cipher_name() == cipher.decode()
    genuine = client.write(b"genuine")
    dice = random.Random(7)
    alert = b"\x15\xfe\xfd\x00\x00\x00\x00\x00\x00\x00\x09\x00\x02\x02\x28"  # fatal, and in the clear
    strange = [alert, alert.replace(b"\x15\xfe", b"\x16\xfe"), b"", b"\x17", bytes(13), bytes(70)]
    for size in (*range(80), 16_384, 16_640, 18_432, 18_433, 65_000):
        numbers = b"\0\1" + (10 + size).to_bytes(6, "big")
        strange += [
            bytes((kind,)) + b"\xfe\xfd" + numbers + size.to_bytes(2, "big") + bytes(size) for kind in range(19, 26)
        ]
    for _ in range(1_000):
        changed = bytearray(genuine)
        changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
        strange += [bytes(changed), dice.randbytes(dice.randrange(100)), genuine[: dice.randrange(len(genuine))]]
    for datagram in strange:
        session.feed(datagram)
        assert session.error is None
        assert not session.peer_finished
    assert echo(server, client, b"still there") == [b"still there"]


def test_a_handshake_that_asks_for_much_memory_gets_none(dtls: DtlsOptions) -> None:
    server, client = Server(dtls), Client()
    for datagram in client.hello():
        for answer in server.feed(datagram):
            client.feed(answer)
    [hello] = client.take()
    answers = server.feed(hello)
    session = server.session
    assert session is not None
    before = session.handshake_bytes
    for number in range(2, 12):
        fragment = b"\x0b" + (90_000).to_bytes(3, "big") + number.to_bytes(2, "big") + bytes(3) + b"\0\0\1" + b"x"
        numbers = bytes(2) + (100 + number).to_bytes(6, "big")
        session.feed(b"\x16\xfe\xfd" + numbers + len(fragment).to_bytes(2, "big") + fragment)
    assert session.handshake_bytes == before  # OpenSSL never saw one
    for answer in answers:
        client.feed(answer)
    for datagram in client.take():
        for answer in server.feed(datagram):
            client.feed(answer)
    assert client.handshaken


def test_a_handshake_without_end_fails(dtls: DtlsOptions) -> None:
    server, client = Server(dtls), Client()
    for datagram in client.hello():
        for answer in server.feed(datagram):
            client.feed(answer)
    server.feed(client.take()[0])
    session = server.session
    assert session is not None
    number = 10
    while session.error is None:
        number += 1
        assert number < 1_000
        session.feed(b"\x17\xfe\xfd\0\1" + number.to_bytes(6, "big") + (1_000).to_bytes(2, "big") + bytes(1_000))
    assert session.why_failed() == "the handshake is too long"


def test_a_client_of_an_older_version_is_refused_with_an_alert(dtls: DtlsOptions) -> None:
    server, client = Server(dtls), Client()
    [first] = client.hello()
    old = first[:25] + b"\xfe\xff" + first[27:]
    [question] = server.feed(old)
    cookie = question[28:]
    hello = read_hello(old)
    assert hello is not None
    body = old[25:59] + old[59:60] + bytes((len(cookie),)) + cookie + old[61:]
    length = len(body).to_bytes(3, "big")
    message = b"\1" + length + b"\0\1" + bytes(3) + length + body
    second = old[:3] + bytes(7) + b"\1" + len(message).to_bytes(2, "big") + message
    answers = server.feed(second)
    assert server.session is not None
    assert server.session.why_failed() == "unsupported protocol"
    assert [answer[0] for answer in answers] == [21]


def test_a_failed_session_neither_reads_nor_writes(certificates: Path) -> None:
    options = DtlsOptions(certfile=certificates / "localhost.pem", client_ca=certificates / "ca.pem")
    server, client = Server(options), Client()
    session = shake(server, client)
    assert session.error is not None
    assert session.feed(b"\x17\xfe\xfd" + bytes(10)) == []
    assert session.timeout() is None
    assert session.finish() == []
    session.take()
    assert session.write(b"late") == b""


def test_a_second_question_of_the_same_client_comes_to_the_same_peer(dtls: DtlsOptions) -> None:
    server = Server(dtls)
    [first] = Client().hello()
    one, other = server.feed(first), server.feed(first)
    assert one == other or len(one[0]) == len(other[0])
    assert server.session is None
    assert server.doorkeeper.answer(first, ADDRESS) is not None
