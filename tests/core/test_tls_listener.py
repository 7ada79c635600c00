"""A listener for TLS: real sockets, Python's own TLS client in a thread, every backend and both handler styles."""

from __future__ import annotations

import socket
import ssl
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest
import trustme

from esockd_core import (
    CallbackHandler,
    InvalidOption,
    Listener,
    ListenerOptions,
    StreamConnection,
    TlsCertificate,
    TlsOptions,
    open_listener,
)
from esockd_proxyproto import Endpoint, ProxyHeader, encode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from esockd_core import ConnectionEvent, Handler

pytestmark = pytest.mark.anyio

AUTHORITY = trustme.CA()
HEADER = encode(ProxyHeader(2, source=Endpoint("192.0.2.7", 41000), destination=Endpoint("192.0.2.1", 443)))


async def echo(connection: StreamConnection) -> None:
    async for data in connection:
        await connection.send(data)


class Echo(CallbackHandler):
    def data_received(self, connection: StreamConnection, data: bytes) -> None:
        connection.send_nowait(data)


@pytest.fixture(params=[echo, Echo()], ids=["coroutine", "callback"])
def handler(request: pytest.FixtureRequest) -> Handler:
    chosen: Handler = request.param
    return chosen


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("certificates")
    for name in ("localhost", "other.example.org"):
        issued = AUTHORITY.issue_cert(name, "127.0.0.1" if name == "localhost" else name)
        issued.private_key_and_cert_chain_pem.write_to_path(str(directory / f"{name}.pem"))
    AUTHORITY.cert_pem.write_to_path(str(directory / "ca.pem"))
    return directory


@pytest.fixture
def tls(files: Path) -> TlsOptions:
    return TlsOptions(certfile=files / "localhost.pem")


def client_context(version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


@asynccontextmanager
async def encrypted(handler: Handler, tls: TlsOptions, **options: Any) -> AsyncIterator[Listener]:
    with anyio.fail_after(20):
        async with open_listener("tls", "tls://127.0.0.1:0", handler, tls=tls, **options) as listener:
            yield listener


def dial(listener: Listener, before: bytes = b"") -> socket.socket:
    """A blocking client for a thread."""
    assert listener.port is not None
    client = socket.create_connection(("127.0.0.1", listener.port), timeout=10)
    if before:
        client.sendall(before)
    return client


def secure(client: socket.socket, context: ssl.SSLContext, name: str = "localhost") -> ssl.SSLSocket:
    return context.wrap_socket(client, server_hostname=name, suppress_ragged_eofs=False)


def read(client: ssl.SSLSocket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size and (data := client.recv(65_536)):
        received += data
    return bytes(received)


async def run(client: Callable[[], Any]) -> Any:
    return await anyio.to_thread.run_sync(client, abandon_on_cancel=True)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - a listener tells nobody; the deadline of `encrypted` bounds it
        await anyio.sleep(0.01)


async def reasons(listener: Listener, count: int = 1) -> dict[str, int]:
    await until(lambda: sum(listener.stats().shutdown_counts.values()) >= count)
    return listener.stats().shutdown_counts


def ask(listener: Listener, question: bytes, context: ssl.SSLContext, before: bytes = b"") -> bytes:
    """Ask, read the answer, say goodbye both ways."""
    with secure(dial(listener, before), context) as client:
        client.sendall(question)
        answer = read(client, len(question))
        client.unwrap().close()
        return answer


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_an_echo_and_an_orderly_end(handler: Handler, tls: TlsOptions, version: ssl.TLSVersion) -> None:
    async with encrypted(handler, tls) as listener:
        assert await run(lambda: ask(listener, b"hello", client_context(version))) == b"hello"
        assert await reasons(listener) == {"normal": 1}
        stats = listener.stats()
        assert (stats.bytes_in, stats.bytes_out) == (5, 5)


@pytest.mark.parametrize("size", [16_384, 100_000, 4_000_000])
async def test_large_data_crosses_whole_in_both_directions(handler: Handler, tls: TlsOptions, size: int) -> None:
    data = bytes(range(256)) * (size // 256)

    def transfer() -> bytes:
        received = bytearray()
        with secure(dial(listener), client_context()) as client:
            for at in range(0, len(data), 100_000):
                piece = data[at : at + 100_000]
                client.sendall(piece)
                received += read(client, len(piece))
        return bytes(received)

    async with encrypted(handler, tls) as listener:
        assert await run(transfer) == data


async def test_a_peer_that_does_not_read_is_waited_for(tls: TlsOptions) -> None:
    size = 8_000_000
    sent = 0

    async def pour(connection: StreamConnection) -> None:
        nonlocal sent
        while sent < size:
            await connection.send(bytes(100_000))
            sent += 100_000

    async with encrypted(pour, tls) as listener:
        with await run(lambda: secure(dial(listener), client_context())) as client:
            await until(lambda: sent > 0)
            held = -1
            while held != sent:
                held = sent
                await anyio.sleep(0.1)
            assert sent < size
            assert len(await run(lambda: read(client, size))) == size
            assert await run(lambda: client.recv(1)) == b""


async def test_a_handler_that_does_not_read_pauses_the_peer_and_loses_nothing(tls: TlsOptions) -> None:
    size = 20_000_000
    go = anyio.Event()
    pushed = received = 0

    async def read_late(connection: StreamConnection) -> None:
        nonlocal received
        await go.wait()
        async for data in connection:
            received += len(data)

    def push() -> None:
        nonlocal pushed
        with secure(dial(listener), client_context()) as client:
            while pushed < size:
                client.sendall(bytes(100_000))
                pushed += 100_000
            with suppress(OSError):
                client.unwrap()

    async with encrypted(read_late, tls) as listener, anyio.create_task_group() as task_group:
        task_group.start_soon(run, push)
        await until(lambda: pushed > 0)
        held = -1
        while held != pushed:
            held = pushed
            await anyio.sleep(0.1)
        assert held < size
        assert listener.connections[0].bytes_in < 1_000_000
        go.set()
        assert await reasons(listener) == {"normal": 1}
        assert received == size


async def test_receive_takes_as_little_as_it_is_asked_for(tls: TlsOptions) -> None:
    async def read_three(connection: StreamConnection) -> None:
        parts = []
        for _ in range(100):
            part = await connection.receive(3)
            assert len(part) <= 3
            parts.append(part)
        await connection.send(b"".join(parts))

    async with encrypted(read_three, tls) as listener:
        assert await run(lambda: ask(listener, b"abc" * 100, client_context())) == b"abc" * 100


async def test_our_farewell_reaches_a_client_that_still_sends(tls: TlsOptions) -> None:
    """The last reply is not destroyed by input that nobody read."""

    async def reply(connection: StreamConnection) -> None:
        await connection.receive(1)
        await connection.send(b"goodbye")

    def talk() -> bytes:
        with secure(dial(listener), client_context()) as client:
            client.sendall(bytes(100_000))
            return read(client, 100)

    async with encrypted(reply, tls) as listener:
        assert await run(talk) == b"goodbye"


async def test_send_eof_leaves_the_other_direction_open(tls: TlsOptions) -> None:
    received: list[bytes] = []

    async def half_close(connection: StreamConnection) -> None:
        await connection.send(b"all I have")
        await connection.send_eof()
        received.extend([data async for data in connection])

    def talk() -> bytes:
        with secure(dial(listener), client_context()) as client:
            answer = read(client, 100)
            client.sendall(b"and I have more")
            with suppress(OSError):
                client.unwrap()
            return answer

    async with encrypted(half_close, tls) as listener:
        assert await run(talk) == b"all I have"
        assert await reasons(listener) == {"normal": 1}
    assert b"".join(received) == b"and I have more"


async def test_a_stream_cut_short_is_told_from_one_that_ended(tls: TlsOptions) -> None:
    """Whoever can cut the connection could otherwise cut the message (RFC 8446 section 6.1)."""
    seen: list[bytes | type[Exception]] = []

    async def look(connection: StreamConnection) -> None:
        try:
            while True:
                seen.append(await connection.receive())
        except (anyio.EndOfStream, anyio.BrokenResourceError) as error:
            seen.append(type(error))

    def cut() -> None:
        # With 1.3 there would be session tickets to read, and a close without that resets the connection.
        with secure(dial(listener), client_context(ssl.TLSVersion.TLSv1_2)) as client:
            client.sendall(b"pay 1")
            read_only = client.detach()
        socket.socket(fileno=read_only).close()

    async with encrypted(look, tls) as listener:
        await run(cut)
        await reasons(listener)
    assert seen == [b"pay 1", anyio.BrokenResourceError]


async def test_a_callback_handler_is_told_of_a_stream_cut_short(tls: TlsOptions) -> None:
    seen: list[object] = []

    class Look(CallbackHandler):
        def data_received(self, connection: StreamConnection, data: bytes) -> None:
            seen.append(data)

        def eof_received(self, connection: StreamConnection) -> None:
            seen.append("end")

        def connection_lost(self, connection: StreamConnection, error: Exception | None) -> None:
            seen.append(type(error))

    def cut() -> None:
        # With 1.3 there would be session tickets to read, and a close without that resets the connection.
        with secure(dial(listener), client_context(ssl.TLSVersion.TLSv1_2)) as client:
            client.sendall(b"pay 1")
            read_only = client.detach()
        socket.socket(fileno=read_only).close()

    async with encrypted(Look(), tls) as listener:
        await run(cut)
        await reasons(listener)
    assert seen == [b"pay 1", ConnectionAbortedError]


async def test_the_facts_of_a_connection(files: Path) -> None:
    seen: list[StreamConnection] = []

    async def look(connection: StreamConnection) -> None:
        seen.append(connection)
        assert connection.tls is connection.tls
        assert connection.extra(anyio.abc.SocketAttribute.raw_socket).fileno() > 0
        await connection.receive()
        await connection.send(b"done")

    options = TlsOptions(certfile=files / "localhost.pem", alpn=["mqtt"], client_ca=files / "ca.pem")
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
    assert (info.version, info.server_name, info.alpn, info.ended_upstream) == ("TLSv1.3", "localhost", "mqtt", False)
    assert info.peer_certificate.common_name == "sensor 7"
    assert info.peer_certificate.is_verified


async def test_a_client_without_a_certificate_is_refused_where_one_is_required(handler: Handler, files: Path) -> None:
    options = TlsOptions(certfile=files / "localhost.pem", client_ca=files / "ca.pem")

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


async def test_each_server_name_gets_its_certificate(handler: Handler, files: Path) -> None:
    others = {"other.example.org": TlsCertificate(certfile=files / "other.example.org.pem")}
    options = TlsOptions(certfile=files / "localhost.pem", sni=others)

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
        handler, tls, proxy_protocol=True, proxy_protocol_timeout=2, handshake_timeout=2, max_handshaking=500
    ) as listener:
        stalled = [dial(listener, sent[:length]) for length in lengths]
        await until(lambda: listener.stats().accepted == 250)
        assert await run(lambda: ask(listener, b"hello", client_context(), HEADER)) == b"hello"
        counts = await reasons(listener, 251)
        in_header = sum(length < len(HEADER) for length in lengths)
        assert counts == {"normal": 1, "proxy_timeout": in_header, "handshake_timeout": 250 - in_header}
        for client in stalled:
            with client:
                client.settimeout(5)
                with suppress(ConnectionResetError):
                    while client.recv(65_536):
                        pass


async def test_a_proxy_header_and_a_handshake_in_one_segment(tls: TlsOptions) -> None:
    async def tell(connection: StreamConnection) -> None:
        assert connection.tls is not None
        assert not connection.tls.ended_upstream
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
            with pytest.raises(ssl.SSLZeroReturnError):  # the other side's farewell
                client.read(100)
            return answer

    async with encrypted(handler, tls) as listener:
        assert await run(talk) == b"last words"
        assert await reasons(listener) == {"normal": 1}


async def test_a_certificate_is_exchanged_without_dropping_a_connection(handler: Handler, files: Path) -> None:
    live = files / "live.pem"
    live.write_bytes((files / "localhost.pem").read_bytes())

    def shown(client: ssl.SSLSocket) -> str:
        certificate = client.getpeercert()
        assert certificate is not None
        return str(certificate["subjectAltName"])

    async with encrypted(handler, TlsOptions(certfile=live)) as listener:
        with await run(lambda: secure(dial(listener), client_context())) as old:
            live.write_bytes((files / "other.example.org.pem").read_bytes())
            listener.set_tls()
            with await run(lambda: secure(dial(listener), client_context(), "other.example.org")) as new:
                assert "other.example.org" in shown(new)
            live.write_text("rubbish")
            with pytest.raises(InvalidOption):
                listener.set_tls()
            with await run(lambda: secure(dial(listener), client_context(), "other.example.org")) as newer:
                assert "other.example.org" in shown(newer)
            old.sendall(b"still here")
            assert await run(lambda: read(old, 10)) == b"still here"


async def test_each_connection_starts_and_stops_once(handler: Handler, tls: TlsOptions) -> None:
    events: list[tuple[str, str | None]] = []

    def note(event: ConnectionEvent) -> None:
        events.append((event.kind, event.reason))

    async with encrypted(handler, tls, on_event=note) as listener:
        await run(lambda: ask(listener, b"hello", client_context()))
        await run(lambda: dial(listener, b"junk junk junk").close())
        await reasons(listener, 2)
        assert listener.stats().current_connections == 0
    assert sorted(events, key=str) == [
        ("connection_started", None),
        ("connection_started", None),
        ("connection_stopped", "normal"),
        ("connection_stopped", "tls_failed"),
    ]


async def test_a_listener_that_closes_ends_connections_with_a_farewell(handler: Handler, tls: TlsOptions) -> None:
    async with encrypted(handler, tls, shutdown_timeout=0.2) as listener:
        with await run(lambda: secure(dial(listener), client_context())) as client:
            client.sendall(b"hello")
            assert await run(lambda: read(client, 5)) == b"hello"
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(listener.close)
                assert await run(lambda: client.recv(1)) == b""  # ragged ends raise here


async def test_a_unix_socket_speaks_tls_too(handler: Handler, tls: TlsOptions, tmp_path: Path) -> None:
    path = str(tmp_path / "tls.sock")

    def talk() -> bytes:
        with socket.socket(socket.AF_UNIX) as raw:
            raw.settimeout(10)
            raw.connect(path)
            with secure(raw, client_context()) as client:
                client.sendall(b"hello")
                return read(client, 5)

    with anyio.fail_after(20):
        async with open_listener("tls", f"tls://unix:{path}", handler, tls=tls):
            assert await run(talk) == b"hello"


def test_tls_takes_both_the_address_and_the_option(tls: TlsOptions) -> None:
    with pytest.raises(InvalidOption, match="needs the option tls"):
        Listener("x", "tls://127.0.0.1:0", echo)
    with pytest.raises(InvalidOption, match=r"write tls://127\.0\.0\.1:0"):
        Listener("x", "127.0.0.1:0", echo, ListenerOptions(tls=tls))
    with pytest.raises(InvalidOption, match="speaks no TLS"):
        Listener("x", "127.0.0.1:0", echo).set_tls()
