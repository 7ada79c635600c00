"""Handshakes: certificates both ways, what is no TLS, and what else comes in their segments."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest
from tests.core.conftest import HEADER, reasons, until
from tests.core.tls.conftest import ask, encrypted, read, secure
from tests.core.tls_clients import AUTHORITY, client_context, dial, run
from tests.patience import PATIENCE_S

from esockd_core import InvalidOption, ProxyOptions, StreamConnection, TlsCertificate, TlsOptions

if TYPE_CHECKING:
    from pathlib import Path

    from esockd_core import Handler


pytestmark = pytest.mark.anyio


async def test_the_facts_of_a_connection(certificates: Path) -> None:
    seen: list[StreamConnection] = []

    async def look(connection: StreamConnection) -> None:
        seen.append(connection)
        assert connection.tls is connection.tls
        assert connection.extra(anyio.abc.SocketAttribute.raw_socket).fileno() > 0
        await connection.receive()
        await connection.send(b"done")

    options = TlsOptions(certfile=certificates / "localhost.pem", alpn=["mqtt"], client_ca=certificates / "ca.pem")
    context = client_context()
    context.set_alpn_protocols(["mqtt"])
    AUTHORITY.issue_cert("sensor@example.org", common_name="sensor 7").configure_cert(context)
    facts: list[Any] = []

    async def note(connection: StreamConnection) -> None:
        await look(connection)
        facts.append(connection.tls)

    async with encrypted(note, options) as listener:
        assert await run(lambda: ask(listener, b"ping", context)) == b"done"
    info = facts[0]
    assert (info.version, info.server_name, info.alpn, info.ended_at_proxy) == ("TLSv1.3", "localhost", "mqtt", False)
    assert info.peer_certificate.common_name == "sensor 7"
    assert info.peer_certificate.is_verified


async def test_a_client_without_a_certificate_is_refused_where_one_is_required(
    handler: Handler, certificates: Path
) -> None:
    options = TlsOptions(certfile=certificates / "localhost.pem", client_ca=certificates / "ca.pem")

    def knock() -> str:
        with secure(dial(listener), client_context()) as client:
            try:
                client.sendall(b"hello")
                client.recv(5)
            except ssl.SSLError as error:
                return str(error.reason)
        return "served"

    async with encrypted(handler, options) as listener:
        assert "CERTIFICATE_REQUIRED" in await run(knock)
        assert await reasons(listener) == {"tls_failed": 1}


async def test_each_server_name_gets_its_certificate(handler: Handler, certificates: Path) -> None:
    others = {"other.example.org": TlsCertificate(certfile=certificates / "other.example.org.pem")}
    options = TlsOptions(certfile=certificates / "localhost.pem", sni=others)

    def name_shown(name: str) -> str:
        with secure(dial(listener), client_context(), name) as client:
            certificate = client.getpeercert()
            assert certificate is not None
            return str(certificate["subjectAltName"])

    async with encrypted(handler, options) as listener:
        assert "other.example.org" in await run(lambda: name_shown("other.example.org"))
        assert "localhost" in await run(lambda: name_shown("localhost"))


@pytest.mark.parametrize(
    ("sent", "answer"), [(b"GET / HTTP/1.1\r\n\r\n", b""), (b"\x16\x03\x01\x00\x05hello", b"\x15")]
)
async def test_what_is_no_tls_is_a_failed_handshake(
    handler: Handler, tls: TlsOptions, sent: bytes, answer: bytes
) -> None:
    """OpenSSL has an alert for it (RFC 8446 section 6.2), but none for plain HTTP."""

    def knock() -> bytes:
        with dial(listener, sent) as client:
            return client.recv(1)

    async with encrypted(handler, tls) as listener:
        assert await run(knock) == answer
        assert await reasons(listener) == {"tls_failed": 1}
        assert listener.stats().handshake_failures == {"tls_failed": 1}
        assert listener.stats().handshakes.count == 0
        assert await run(lambda: ask(listener, b"hello", client_context())) == b"hello"


async def test_a_port_check_is_a_counter_and_no_log_line(
    handler: Handler, tls: TlsOptions, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "esockd_core")
    async with encrypted(handler, tls) as listener:
        await run(lambda: dial(listener).close())
        assert await reasons(listener) == {"tls_closed": 1}
    assert not caplog.records


async def test_a_handshake_cut_short_has_failed(handler: Handler, tls: TlsOptions) -> None:
    async with encrypted(handler, tls) as listener:
        await run(lambda: dial(listener, b"\x16\x03\x01").close())
        assert await reasons(listener) == {"tls_failed": 1}


def client_hello() -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


async def test_stalled_handshakes_are_closed_by_their_deadline_and_keep_nobody_waiting(
    handler: Handler, tls: TlsOptions
) -> None:
    """Whatever they sent of a PROXY header and a ClientHello, and 250 of them at once."""
    sent = HEADER + client_hello()
    lengths = [len(sent) * number // 250 for number in range(250)]

    async with encrypted(
        handler, tls, proxy_protocol=ProxyOptions(header_timeout=2), handshake_timeout=2, max_handshaking=500
    ) as listener:
        stalled = [dial(listener, sent[:length]) for length in lengths]
        await until(lambda: listener.stats().accepted == 250)
        assert await run(lambda: ask(listener, b"hello", client_context(), HEADER)) == b"hello"
        counts = await reasons(listener, 251)
        in_header = sum(length < len(HEADER) for length in lengths)
        assert counts == {"normal": 1, "proxy_timeout": in_header, "handshake_timeout": 250 - in_header}
        for client in stalled:
            with client:
                client.settimeout(PATIENCE_S)
                with suppress(ConnectionResetError):
                    while client.recv(65_536):
                        pass


async def test_a_proxy_header_and_a_handshake_in_one_segment(tls: TlsOptions) -> None:
    async def tell(connection: StreamConnection) -> None:
        assert connection.tls is not None
        assert not connection.tls.ended_at_proxy
        await connection.send(f"{connection.peername}".encode())

    def talk(piece: int) -> bytes:
        """Shake hands by hand, so that the header and the first flight share a segment."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = client_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
        waiting = HEADER
        with dial(listener) as raw:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while True:
                try:
                    answer = client.read(100)
                except ssl.SSLWantReadError:
                    waiting += outgoing.read()
                    for at in range(0, len(waiting), piece):
                        raw.sendall(waiting[at : at + piece])
                    waiting = b""
                    incoming.write(raw.recv(65_536))
                else:
                    return answer

    async with encrypted(tell, tls, proxy_protocol=True) as listener:
        assert await run(lambda: talk(65_536)) == b"('192.0.2.7', 41000)"
        assert await run(lambda: talk(1)) == b"('192.0.2.7', 41000)"


async def test_data_behind_the_handshake_in_one_segment_reaches_the_handler(handler: Handler, tls: TlsOptions) -> None:
    def talk() -> bytes:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = client_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
        with dial(listener) as raw:
            while True:
                try:
                    client.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    raw.sendall(outgoing.read())
                    incoming.write(raw.recv(65_536))
            client.write(b"at once")
            raw.sendall(outgoing.read())
            while True:
                try:
                    return client.read(100)
                except ssl.SSLWantReadError:
                    incoming.write(raw.recv(65_536))

    async with encrypted(handler, tls) as listener:
        assert await run(talk) == b"at once"


async def test_an_end_in_one_segment_with_the_last_data_is_noticed_at_once(handler: Handler, tls: TlsOptions) -> None:
    def talk() -> bytes:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = client_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
        with dial(listener) as raw:
            while True:
                try:
                    client.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    raw.sendall(outgoing.read())
                    incoming.write(raw.recv(65_536))
            raw.sendall(outgoing.read())
            client.write(b"last words")
            with suppress(ssl.SSLWantReadError):
                client.unwrap()
            raw.sendall(outgoing.read())
            while data := raw.recv(65_536):
                incoming.write(data)
            answer = client.read(100)
            with pytest.raises(ssl.SSLZeroReturnError):  # the other side's close_notify
                client.read(100)
            return answer

    async with encrypted(handler, tls) as listener:
        assert await run(talk) == b"last words"
        assert await reasons(listener) == {"normal": 1}


async def test_a_certificate_is_exchanged_without_dropping_a_connection(handler: Handler, certificates: Path) -> None:
    live = certificates / "live.pem"
    live.write_bytes((certificates / "localhost.pem").read_bytes())

    def shown(client: ssl.SSLSocket) -> str:
        certificate = client.getpeercert()
        assert certificate is not None
        return str(certificate["subjectAltName"])

    async with encrypted(handler, TlsOptions(certfile=live)) as listener:
        with await run(lambda: secure(dial(listener), client_context())) as old:
            live.write_bytes((certificates / "other.example.org.pem").read_bytes())
            await listener.set_tls()
            with await run(lambda: secure(dial(listener), client_context(), "other.example.org")) as new:
                assert "other.example.org" in shown(new)
            live.write_text("rubbish")
            with pytest.raises(InvalidOption):
                await listener.set_tls()
            with await run(lambda: secure(dial(listener), client_context(), "other.example.org")) as newer:
                assert "other.example.org" in shown(newer)
            old.sendall(b"still here")
            assert await run(lambda: read(old, 10)) == b"still here"
