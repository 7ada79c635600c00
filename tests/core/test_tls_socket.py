"""The socket that speaks TLS on trio, over a socket that takes as little as it likes."""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, cast

import pytest
import trustme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from esockd_core import TlsOptions
from esockd_core._tls import TlsEngine
from esockd_core._transports.trio_tls import TlsSocket

if TYPE_CHECKING:
    import socket
    from pathlib import Path

AUTHORITY = trustme.CA()


class Narrow:
    """A non-blocking socket with room for some bytes, and what arrives at the other end."""

    def __init__(self) -> None:
        self.room = 0
        self.sent = b""
        self.is_shut = False

    def send(self, data: bytes) -> int:
        if not self.room:
            raise BlockingIOError
        taken = data[: self.room]
        self.room -= len(taken)
        self.sent += taken
        return len(taken)

    def fileno(self) -> int:
        return -1

    def shutdown(self, _: int) -> None:
        self.is_shut = True


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    file: Path = tmp_path_factory.mktemp("certificates") / "localhost.pem"
    AUTHORITY.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(file))
    return TlsOptions(certfile=file).context


def connected(context: ssl.SSLContext) -> tuple[TlsSocket, Narrow, ssl.SSLObject, ssl.MemoryBIO]:
    engine, raw = TlsEngine(context), Narrow()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client_context = ssl.create_default_context()
    AUTHORITY.configure_trust(client_context)
    client = client_context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    while not engine.handshaken:
        with suppress(ssl.SSLWantReadError):
            client.do_handshake()
        engine.feed(outgoing.read())
        incoming.write(engine.take())
    return TlsSocket(cast("socket.socket", raw), engine, b""), raw, client, incoming


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(
    messages=st.lists(st.binary(max_size=40_000), min_size=1, max_size=4),
    rooms=st.lists(st.integers(1, 30_000), min_size=1, max_size=20),
)
def test_every_byte_is_sent_once_whatever_room_there_is(
    context: ssl.SSLContext, messages: list[bytes], rooms: list[int]
) -> None:
    """The sender keeps what `send` did not take and tries again with it, and with more behind it."""
    tls, raw, client, incoming = connected(context)
    waiting = bytearray()
    for message in messages:
        waiting += message
        raw.room += rooms.pop(0) if rooms else 100
        with suppress(BlockingIOError):
            del waiting[: tls.send(bytes(waiting))]
    while waiting:
        raw.room += rooms.pop(0) if rooms else 10_000
        with suppress(BlockingIOError):
            del waiting[: tls.send(bytes(waiting))]
    while not raw.is_shut:
        raw.room += 7
        with suppress(BlockingIOError):
            tls.shutdown(1)
    incoming.write(raw.sent)
    received = b""
    while data := client.read(65_536):
        received += data
    assert received == b"".join(messages)


def test_nothing_counts_as_sent_while_its_last_byte_waits(context: ssl.SSLContext) -> None:
    tls, raw, _, _ = connected(context)
    raw.room = 10
    assert tls.send(b"hello") == 4
    with pytest.raises(BlockingIOError):
        tls.send(b"o")
    raw.room = 1000
    assert tls.send(b"o") == 1
