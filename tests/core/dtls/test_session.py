"""DTLS sessions in memory: against a client of OpenSSL's, over a good and a bad network."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.core.dtls.peers import ADDRESS, Client, Network, Server, echo, shake

from esockd_core._dtls.facts import describe_dtls
from esockd_core._options.dtls import DtlsOptions

if TYPE_CHECKING:
    from pathlib import Path


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


def test_a_server_name_that_no_host_has_is_not_taken_over(dtls: DtlsOptions) -> None:
    session = shake(Server(dtls), Client(server_name="a\x1b[31m b"))
    assert session.handshaken
    assert describe_dtls(session).server_name is None


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


def test_a_second_question_of_the_same_client_comes_to_the_same_peer(dtls: DtlsOptions) -> None:
    server = Server(dtls)
    [first] = Client().hello()
    one, other = server.feed(first), server.feed(first)
    assert one == other or len(one[0]) == len(other[0])
    assert server.session is None
    assert server.doorkeeper.answer(first, ADDRESS) is not None
