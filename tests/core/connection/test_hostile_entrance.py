"""What strangers may try before a handler hears of them: forged records, headers and names."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest
from tests.core.conftest import HEADER, Echo, reasons, until
from tests.core.connection.strangers import ByHand, hello, rest, secure, serving
from tests.core.tls_clients import dial, run
from tests.patience import PATIENCE_S

from esockd_core import InvalidOption, StreamConnection, TlsOptions
from esockd_core._tls.engine import TlsEngine
from esockd_proxyproto import Endpoint, ProxyHeader, encode

if TYPE_CHECKING:
    from pathlib import Path

    from esockd_core import ConnectionEvent, Handler


pytestmark = pytest.mark.anyio


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


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY TCP6 ::ffff:192.0.2.8 ::ffff:192.0.2.1 1 2\r\n",
        b"PROXY TCP6 ::FFFF:c000:208 ::1 1 2\r\n",
        b"PROXY TCP6 0:0:0:0:0:ffff:192.0.2.8 ::1 1 2\r\n",
        encode(ProxyHeader(source=Endpoint("::ffff:192.0.2.8", 1), destination=Endpoint("::1", 2))),
    ],
)
async def test_an_ipv4_source_in_the_clothes_of_ipv6_is_judged_as_ipv4(
    handler: Handler, header: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "esockd_core")
    async with serving(handler, proxy_protocol=True, access_rules=["deny 192.0.2.8"]) as listener:
        with await run(lambda: dial(listener, header)) as client:
            await run(lambda: rest(client))
            assert await reasons(listener) == {"source_forbidden": 1}
    assert caplog.records[-1].peer == ("192.0.2.8", 1)  # type: ignore[attr-defined]


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
            flag.wait(PATIENCE_S)
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
        await until(lambda: listener.stats().entering)
        await anyio.sleep(0.01)
        flag.set()
        await until(lambda: answers)
        assert answers == [b"hello"]


async def test_a_handshake_goes_on_with_the_certificate_it_began_with(handler: Handler, certificates: Path) -> None:
    def finish(client: socket.socket, by_hand: ByHand) -> str:
        client.sendall(by_hand.answer(client))
        certificate = by_hand.tls.getpeercert()
        assert certificate is not None
        return str(certificate["subjectAltName"])

    live = certificates / "live.pem"
    live.write_bytes((certificates / "localhost.pem").read_bytes())
    async with serving(handler, tls=TlsOptions(certfile=live)) as listener:
        by_hand = ByHand()
        flight = by_hand.step()
        with await run(lambda: dial(listener, flight[:100])) as client:
            await until(lambda: listener.stats().entering)
            await anyio.sleep(0.01)
            live.write_bytes((certificates / "other.example.org.pem").read_bytes())
            await listener.set_tls()
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
            await until(lambda: listener.stats().entering)
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
async def test_what_connection_made_raises_ends_the_connection_after_its_entrance(
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
def test_a_server_name_that_no_client_sends_is_named(certificates: Path, name: Any) -> None:
    with pytest.raises(InvalidOption, match="sni"):
        TlsOptions(certfile=certificates / "localhost.pem", sni={name: None})  # type: ignore[dict-item]
