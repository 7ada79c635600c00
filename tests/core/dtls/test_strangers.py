"""What strangers send to a DTLS session ends none that is open, and takes no memory."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from tests.core.dtls.conftest import KEYS
from tests.core.dtls.peers import Client, Server, echo, shake

from esockd_core._dtls.hello import read_hello
from esockd_core._options.dtls import DtlsOptions

if TYPE_CHECKING:
    from pathlib import Path


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
