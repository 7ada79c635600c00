"""What strangers may try before a handler hears of them, and what then is counted, logged and kept."""

from __future__ import annotations

import logging
import socket
import ssl
import struct
import threading
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest
import trustme
from tests.core.conftest import Echo

from esockd_core import InvalidOption, StreamConnection, TcpOptions, TlsOptions, open_listener
from esockd_core._tls import TlsEngine
from esockd_proxyproto import Endpoint, ProxyHeader, UnixEndpoint, encode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from esockd_core import ConnectionEvent, Handler, Listener

pytestmark = pytest.mark.anyio

AUTHORITY = trustme.CA()
PROXY = Endpoint("192.0.2.1", 443)
HEADER = encode(ProxyHeader(source=Endpoint("192.0.2.7", 41000), destination=PROXY))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("certificates")
    for name in ("localhost", "other.example.org"):
        AUTHORITY.issue_cert(name).private_key_and_cert_chain_pem.write_to_path(str(directory / f"{name}.pem"))
    chain = (directory / "localhost.pem").read_bytes() + AUTHORITY.cert_pem.bytes() * 60
    (directory / "long-chain.pem").write_bytes(chain)
    return directory


@pytest.fixture
def tls(folder: Path) -> TlsOptions:
    return TlsOptions(certfile=folder / "localhost.pem")


@asynccontextmanager
async def serving(handler: Handler, **options: Any) -> AsyncIterator[Listener]:
    address = "tls://127.0.0.1:0" if "tls" in options else "127.0.0.1:0"
    with anyio.fail_after(20):
        async with open_listener("hostile", address, handler, **options) as listener:
            yield listener


def dial(listener: Listener, sent: bytes = b"") -> socket.socket:
    assert listener.port is not None
    client = socket.create_connection(("127.0.0.1", listener.port), timeout=10)
    client.sendall(sent)
    return client


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def client_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


def secure(client: socket.socket, name: str = "localhost") -> ssl.SSLSocket:
    return client_context().wrap_socket(client, server_hostname=name)


class ByHand:
    """A client of TLS in memory."""

    def __init__(self, name: str = "localhost") -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = client_context().wrap_bio(self.incoming, self.outgoing, server_hostname=name)

    def step(self) -> bytes:
        """Go on with the handshake; what is to be sent."""
        with suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self.outgoing.read()

    def answer(self, client: socket.socket) -> bytes:
        """Take the other side's flight; the last message of ours."""
        while True:
            self.incoming.write(client.recv(65_536))
            if flight := self.step():
                return flight


def hello(name: str = "localhost") -> bytes:
    return ByHand(name).step()


def rest(client: socket.socket) -> bytes:
    received = b""
    with suppress(ConnectionResetError):
        while data := client.recv(65_536):
            received += data
    return received


async def run(client: Callable[[], Any]) -> Any:
    return await anyio.to_thread.run_sync(client, abandon_on_cancel=True)


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - a listener tells nobody; `serving` bounds it
        await anyio.sleep(0.01)


async def reasons(listener: Listener, count: int = 1) -> dict[str, int]:
    await until(lambda: sum(listener.stats().shutdown_counts.values()) >= count)
    return listener.stats().shutdown_counts


# Bounds


@pytest.mark.parametrize("what", ["header", "handshake", "both"])
async def test_max_handshaking_holds_for_clients_that_come_at_once(handler: Handler, folder: Path, what: str) -> None:
    """However many one look at the accept queue brings."""
    options: dict[str, Any] = {"max_handshaking": 3}
    if what != "header":
        options["tls"] = TlsOptions(certfile=folder / "localhost.pem")
    if what != "handshake":
        options["proxy_protocol"] = True
    async with serving(handler, **options) as listener:
        await listener.suspend()
        clients = [dial(listener) for _ in range(20)]
        await listener.resume()
        await until(lambda: listener.stats().accepted + listener.stats().closed_overloaded == 20)
        assert (listener.stats().accepted, listener.stats().upgrading) == (3, 3)
        for client in clients:
            client.close()
        await reasons(listener, 3)
        assert listener.stats().upgrading == 0


@pytest.mark.parametrize("how", ["abort", "close_nowait", "reset", "timeout", "refused"])
@pytest.mark.parametrize("phase", ["header", "handshake"])
async def test_a_place_among_those_in_upgrade_is_given_back_however_one_ends(
    handler: Handler, tls: TlsOptions, how: str, phase: str
) -> None:
    timeout = 0.1 if how == "timeout" else 10
    async with serving(
        handler,
        tls=tls,
        proxy_protocol=True,
        max_handshaking=1,
        proxy_protocol_timeout=timeout,
        handshake_timeout=timeout,
    ) as listener:
        for _ in range(3):
            before = listener.stats().accepted
            with await run(lambda: dial(listener, HEADER[:20] if phase == "header" else HEADER + b"\x16")) as client:
                await until(lambda: listener.stats().accepted > before)  # noqa: B023
                if how == "reset":
                    reset(client)
                elif how == "refused":
                    client.sendall(bytes(200))
                elif how != "timeout":
                    getattr(listener.connections[0], how)("enough")
                await until(lambda: not listener.connections)
                assert listener.stats().upgrading == 0
        assert listener.stats().closed_overloaded == 0
        assert listener.stats().current_connections == 0


async def test_a_client_aborted_before_its_upgrade_began_leaves_no_trace(
    handler: Handler, tls: TlsOptions, caplog: pytest.LogCaptureFixture
) -> None:
    """By the hook that hears of the next client, as both were accepted at one look."""
    started: list[StreamConnection] = []

    def abort_the_one_before(event: ConnectionEvent) -> None:
        if event.kind == "connection_started":
            if started:
                started[-1].abort("replaced")
            started.append(event.connection)  # type: ignore[arg-type] # of a stream

    async with serving(handler, tls=tls, on_event=abort_the_one_before) as listener:
        await listener.suspend()
        clients = [dial(listener) for _ in range(3)]
        await listener.resume()
        assert await reasons(listener, 2) == {"replaced": 2}
        for client in clients:
            client.close()
        await reasons(listener, 3)
        assert listener.stats().upgrading == 0
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_whoever_stalls_at_the_end_of_the_handshake_is_closed_too(handler: Handler, tls: TlsOptions) -> None:
    """After the server has done its arithmetic: at the bytes of the client's last message."""

    def stall(length: int) -> socket.socket:
        client, by_hand = dial(listener), ByHand()
        client.sendall(by_hand.step())
        last = by_hand.answer(client)
        client.sendall(last[: len(last) * length // 10])
        return client

    async with serving(handler, tls=tls, handshake_timeout=1.5) as listener:
        stalled = [await run(partial(stall, length)) for length in range(10)]
        with await run(lambda: secure(dial(listener))) as good:
            good.sendall(b"hello")
            assert await run(lambda: good.recv(5)) == b"hello"
            for client in stalled:
                with client:
                    await run(partial(rest, client))
            counts = await reasons(listener, 10)
        assert counts == {"handshake_timeout": 10}


@pytest.mark.parametrize("reads", [True, False])
async def test_a_peer_that_does_not_read_the_handshake_is_waited_for_until_the_deadline(
    handler: Handler, folder: Path, reads: bool
) -> None:
    """The certificates are more than its kernel and ours hold."""
    tls = TlsOptions(certfile=folder / "long-chain.pem")
    tcp = TcpOptions(send_buffer_bytes=4_608)

    def knock() -> bytes:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_608)
            client.settimeout(10)
            client.connect(("127.0.0.1", listener.port or 0))
            if reads:
                with secure(client) as secured:
                    secured.sendall(b"hello")
                    return secured.recv(5)
            client.sendall(hello())
            reasons_seen.wait(10)
            return b""

    reasons_seen = threading.Event()
    async with serving(handler, tls=tls, tcp=tcp, handshake_timeout=5 if reads else 0.3) as listener:
        async with anyio.create_task_group() as task_group:
            answers: list[bytes] = []

            async def note() -> None:
                answers.append(await run(knock))

            task_group.start_soon(note)
            if not reads:
                assert await reasons(listener) == {"handshake_timeout": 1}
                reasons_seen.set()
        assert answers == [b"hello" if reads else b""]


# What is counted and logged


@pytest.mark.parametrize("sent", [b"", HEADER[:20], HEADER, HEADER + b"\x16\x03\x01"])
async def test_a_timeout_is_logged_once_under_its_own_reason(
    handler: Handler, tls: TlsOptions, caplog: pytest.LogCaptureFixture, sent: bytes
) -> None:
    caplog.set_level("INFO", "esockd_core")
    reason = "handshake_timeout" if sent.startswith(HEADER) else "proxy_timeout"
    async with serving(
        handler, tls=tls, proxy_protocol=True, proxy_protocol_timeout=0.1, handshake_timeout=0.1
    ) as listener:
        with await run(lambda: dial(listener, sent)) as client:
            await run(lambda: rest(client))
            assert await reasons(listener) == {reason: 1}
    assert [record.getMessage().partition("ends ")[2].partition(":")[0] for record in caplog.records] == [f"({reason})"]


async def test_a_port_check_that_resets_is_a_counter_and_no_log_line(
    handler: Handler, tls: TlsOptions, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "esockd_core")
    async with serving(handler, tls=tls) as listener:
        client = await run(lambda: dial(listener))
        await until(lambda: listener.stats().accepted)
        reset(client)
        assert await reasons(listener) == {"tls_closed": 1}
    assert not caplog.records


async def test_a_reset_in_the_handshake_is_a_failure_and_one_log_line(
    handler: Handler, tls: TlsOptions, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "esockd_core")
    async with serving(handler, tls=tls) as listener:
        client = await run(lambda: dial(listener, hello()))
        await run(lambda: client.recv(1))
        reset(client)
        assert await reasons(listener) == {"tls_failed": 1}
    assert len(caplog.records) == 1
    assert "(tls_failed)" in caplog.text


async def test_a_listener_that_is_killed_logs_no_failure_of_those_in_a_handshake(
    handler: Handler, tls: TlsOptions, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "esockd_core")
    async with serving(handler, tls=tls) as listener:
        with await run(lambda: dial(listener, hello()[:50])):
            await until(lambda: listener.stats().upgrading)
            await listener.kill()
            assert listener.stats().shutdown_counts == {"shutdown": 1}
    assert not caplog.records


async def test_no_path_in_a_header_writes_lines_into_a_log(handler: Handler, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "esockd_core")
    path = b"\x00evil\n2026-01-01 root logged in\x1b[2J\xff"
    header = encode(ProxyHeader(source=UnixEndpoint(path), destination=UnixEndpoint(b"/run/x")))
    names: list[Any] = []

    def note(event: ConnectionEvent) -> None:
        names.append(event.connection.peername)

    async with serving(handler, proxy_protocol=True, access_rules=["deny all"], on_event=note) as listener:
        with await run(lambda: dial(listener, header)) as client:
            await run(lambda: rest(client))
            assert await reasons(listener) == {"source_forbidden": 1}
    assert names[-1] == "@evil\\x0a2026-01-01 root logged in\\x1b[2J\\xff"
    assert all("\n" not in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("name", ["aaaa\naaa.example.org", "aaa\x1b[2Ja.example.org", "aaaa aaa.example.org"])
def test_a_server_name_that_no_host_has_is_refused(tls: TlsOptions, name: str) -> None:
    """Whoever logs it would write what the client wants."""
    engine = TlsEngine(tls.context)
    engine.feed(hello("aaaaaaaa.example.org").replace(b"aaaaaaaa.example.org", name.encode()))
    assert engine.error is not None
    assert engine.tls.server_name is None
    assert engine.take()[-1] == ssl.AlertDescription.ALERT_DESCRIPTION_UNRECOGNIZED_NAME


async def test_a_forged_record_ends_the_connection_with_an_alert(handler: Handler, tls: TlsOptions) -> None:
    def forge() -> bytes:
        by_hand = ByHand()
        with dial(listener, by_hand.step()) as client:
            client.sendall(by_hand.answer(client))
            by_hand.tls.write(b"genuine")
            genuine = by_hand.outgoing.read()
            by_hand.tls.write(b"changed")
            forged = bytearray(by_hand.outgoing.read())
            forged[-1] ^= 1
            client.sendall(genuine)
            echoed = b""
            while not echoed:
                by_hand.incoming.write(client.recv(65_536))
                with suppress(ssl.SSLWantReadError):
                    echoed = by_hand.tls.read(100)
            client.sendall(forged)
            by_hand.incoming.write(rest(client))
            with pytest.raises(ssl.SSLError, match="BAD_RECORD_MAC"):
                by_hand.tls.read(100)
            return echoed

    async with serving(handler, tls=tls) as listener:
        assert await run(forge) == b"genuine"
        assert await reasons(listener) == {"reset": 1}


# Whom to believe


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY TCP6 ::ffff:192.0.2.8 ::ffff:192.0.2.1 1 2\r\n",
        b"PROXY TCP6 ::FFFF:c000:208 ::1 1 2\r\n",
        b"PROXY TCP6 0:0:0:0:0:ffff:192.0.2.8 ::1 1 2\r\n",
        encode(ProxyHeader(source=Endpoint("::ffff:192.0.2.8", 1), destination=Endpoint("::1", 2))),
    ],
)
async def test_an_ipv4_source_in_the_clothes_of_ipv6_is_judged_as_ipv4(handler: Handler, header: bytes) -> None:
    names: list[Any] = []

    def note(event: ConnectionEvent) -> None:
        names.append(event.connection.peername)

    async with serving(handler, proxy_protocol=True, access_rules=["deny 192.0.2.8"], on_event=note) as listener:
        with await run(lambda: dial(listener, header)) as client:
            await run(lambda: rest(client))
            assert await reasons(listener) == {"source_forbidden": 1}
    assert names[-1] == ("192.0.2.8", 1)


async def test_a_second_header_changes_nothing_behind_tls_either(handler: Handler, tls: TlsOptions) -> None:
    def talk() -> bytes:
        with secure(dial(listener, HEADER)) as client:
            client.sendall(HEADER)
            received = b""
            while len(received) < len(HEADER):
                received += client.recv(100)
            return received

    names: list[Any] = []

    def note(event: ConnectionEvent) -> None:
        names.append(event.connection.peername)

    async with serving(handler, tls=tls, proxy_protocol=True, on_event=note) as listener:
        assert await run(talk) == HEADER
        await reasons(listener)
    assert names[-1] == ("192.0.2.7", 41000)


@pytest.mark.parametrize("cut", [1, 11, 12, 15, 16, 20, len(HEADER) - 1])
async def test_a_header_in_two_segments_the_second_with_the_first_of_tls(
    handler: Handler, tls: TlsOptions, cut: int
) -> None:
    def talk() -> bytes:
        by_hand = ByHand()
        with dial(listener, HEADER[:cut]) as client:
            flag.wait(10)
            client.sendall(HEADER[cut:] + by_hand.step())
            client.sendall(by_hand.answer(client))
            by_hand.tls.write(b"hello")
            client.sendall(by_hand.outgoing.read())
            while True:
                by_hand.incoming.write(client.recv(65_536))
                with suppress(ssl.SSLWantReadError):
                    return by_hand.tls.read(5)

    flag = threading.Event()
    async with serving(handler, tls=tls, proxy_protocol=True) as listener, anyio.create_task_group() as task_group:
        answers: list[bytes] = []

        async def note() -> None:
            answers.append(await run(talk))

        task_group.start_soon(note)
        await until(lambda: listener.stats().upgrading)
        await anyio.sleep(0.01)
        flag.set()
        await until(lambda: answers)
        assert answers == [b"hello"]


# Changes meanwhile


async def test_a_handshake_goes_on_with_the_certificate_it_began_with(handler: Handler, folder: Path) -> None:
    def finish(client: socket.socket, by_hand: ByHand) -> str:
        client.sendall(by_hand.answer(client))
        certificate = by_hand.tls.getpeercert()
        assert certificate is not None
        return str(certificate["subjectAltName"])

    live = folder / "live.pem"
    live.write_bytes((folder / "localhost.pem").read_bytes())
    async with serving(handler, tls=TlsOptions(certfile=live)) as listener:
        by_hand = ByHand()
        flight = by_hand.step()
        with await run(lambda: dial(listener, flight[:100])) as client:
            await until(lambda: listener.stats().upgrading)
            await anyio.sleep(0.01)
            live.write_bytes((folder / "other.example.org.pem").read_bytes())
            listener.set_tls()
            client.sendall(flight[100:])
            assert "localhost" in await run(lambda: finish(client, by_hand))
            with await run(lambda: secure(dial(listener), "other.example.org")) as other:
                assert other.version() == "TLSv1.3"


async def test_a_listener_that_closes_serves_who_is_in_the_middle_of_a_handshake(
    handler: Handler, tls: TlsOptions
) -> None:
    async with serving(handler, tls=tls) as listener:
        by_hand = ByHand()
        flight = by_hand.step()
        with await run(lambda: dial(listener, flight[:100])) as client:
            await until(lambda: listener.stats().upgrading)
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(listener.close)
                await until(lambda: listener.state == "draining")
                client.sendall(flight[100:])
                client.sendall(await run(lambda: by_hand.answer(client)))
                by_hand.tls.write(b"bye")
                with suppress(ssl.SSLWantReadError):
                    by_hand.tls.unwrap()
                client.sendall(by_hand.outgoing.read())
                client.shutdown(socket.SHUT_WR)
                await run(lambda: rest(client))
        assert set(listener.stats().shutdown_counts) <= {"normal", "shutdown"}
        assert listener.stats().handshakes.count == 1


@pytest.mark.parametrize("options", [{}, {"proxy_protocol": True}], ids=["tls", "proxy and tls"])
async def test_what_connection_made_raises_ends_the_connection_after_its_upgrades(
    tls: TlsOptions, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []

    class Broken(Echo):
        def connection_made(self, connection: StreamConnection) -> None:
            told.append("made")
            raise ValueError("not today")

        def data_received(self, connection: StreamConnection, data: bytes) -> None:
            told.append("data")

        def connection_lost(self, connection: StreamConnection, error: Exception | None) -> None:
            told.append("lost")

    def talk() -> bytes:
        with secure(dial(listener, HEADER if options else b"")) as client:
            client.sendall(b"hello")
            return client.recv(5)

    async with serving(Broken(), tls=tls, **options) as listener:
        assert await run(talk) == b""
        assert await reasons(listener) == {"handler_error": 1}
    assert told == ["made", "lost"]
    assert caplog.text.count("ValueError: not today") == 1


@pytest.mark.parametrize(
    "name", ["b\u00fccher.example", "mail.example.org.", "a..b", "*", "*.", "a.*.b", "", " a.b", 7]
)
def test_a_server_name_that_no_client_sends_is_named(folder: Path, name: Any) -> None:
    with pytest.raises(InvalidOption, match="sni has"):
        TlsOptions(certfile=folder / "localhost.pem", sni={name: None})  # type: ignore[dict-item]
