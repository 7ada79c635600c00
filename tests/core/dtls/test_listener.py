"""DTLS listeners: the same handlers, limits and changes as everywhere, and nothing public before the handshake."""

from __future__ import annotations

import logging
import random
import socket
import tracemalloc
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio
from OpenSSL import SSL
from tests.core.conftest import EventCount, reasons, settle, until
from tests.core.datagrams.udp import Echo, Note, assert_all_accounted_for, drops, echo
from tests.core.dtls.peers import Client, Peer
from tests.ports import steady_address

from esockd_core import (
    BadValueError,
    DatagramConnection,
    DatagramTooLong,
    DtlsOptions,
    Handler,
    InvalidOption,
    Listener,
    ListenerOptions,
    TlsCertificate,
    UdpOptions,
    open_listener,
)
from esockd_core._connection.port import DatagramPort
from esockd_core.testing import Impairment, lossy_link, send_false_hellos

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from esockd_core import TlsInfo

pytestmark = pytest.mark.anyio

STYLES = pytest.mark.parametrize("handler", [echo, Echo()], ids=["coroutine", "callback"])
KEYS = {"sensor 7": b"k" * 32}


@asynccontextmanager
async def serving(dtls: DtlsOptions, handler: Handler = echo, **options: Any) -> AsyncIterator[Listener]:
    with anyio.fail_after(30):
        async with open_listener("dtls", f"dtls://{steady_address()}", handler, dtls=dtls, **options) as listener:
            yield listener


@STYLES
async def test_a_handler_that_iterates_and_sends_serves_dtls(dtls: DtlsOptions, handler: Handler) -> None:
    async with serving(dtls, handler) as listener:
        with Peer(listener) as peer:
            await peer.shake()
            for size in (1, 1_000, 16_384):
                assert await peer.ask(b"x" * size) == b"x" * size
            [connection] = listener.connections
            assert isinstance(connection, DatagramConnection)
            assert connection.peername == peer.name
            assert (connection.datagrams_in, connection.datagrams_out, connection.bytes_in) == (3, 3, 17_385)
        assert_all_accounted_for(listener.stats())
        assert listener.stats().accepted == 1
        assert drops(listener) == {"dtls": 2}
        assert listener.stats().datagrams_answered == 1


async def test_the_tls_of_a_connection_is_described(certificates: Path) -> None:
    seen: list[TlsInfo | None] = []

    async def note(connection: DatagramConnection) -> None:
        seen.append(connection.tls)
        await echo(connection)

    options = DtlsOptions(certfile=certificates / "localhost.pem", alpn=("coap",), psk=KEYS)
    by_certificate = Client(server_name="localhost", alpn=("coap",), ciphers=b"ECDHE+AESGCM")
    by_key = Client(psk=(b"sensor 7", b"k" * 32), ciphers=b"PSK-AES128-GCM-SHA256")
    async with serving(options, note) as listener:
        with Peer(listener, by_certificate) as one, Peer(listener, by_key) as other:
            for peer in (one, other):
                assert await (await peer.shake()).ask(b"hello") == b"hello"
        info = (await listener.list_connections()).connections[0]
        assert info.tls is not None
        assert info.tls.version == "DTLSv1.2"
    first, second = seen
    assert first is not None
    assert second is not None
    assert (first.version, first.server_name, first.alpn, first.psk_identity) == ("DTLSv1.2", "localhost", "coap", None)
    assert (second.psk_identity, second.cipher) == ("sensor 7", "PSK-AES128-GCM-SHA256")


async def test_nothing_of_a_connection_is_public_before_its_handshake(dtls: DtlsOptions) -> None:
    with EventCount() as events:
        async with serving(dtls, on_event=events.note) as listener:
            with Peer(listener) as peer:
                peer.send_all(peer.client.hello())
                peer.client.feed(await peer.receive_datagram())
                peer.send_all(peer.client.take())
                flight = await peer.receive_datagram()
                assert listener.stats().accepted == 1
                assert not [*listener.connections, *events.events]
                peer.client.feed(flight)
                peer.send_all(peer.client.take())
                while not peer.client.handshaken:
                    peer.client.feed(await peer.receive_datagram())
                    peer.send_all(peer.client.take())
                assert await peer.ask(b"hello") == b"hello"
                assert len(listener.connections) == len(events.events) == 1


async def test_a_hello_without_a_proven_cookie_leaves_nothing_behind(dtls: DtlsOptions) -> None:
    async with serving(dtls) as listener:
        with Peer(listener) as peer:
            [hello] = peer.client.hello()
            for _ in range(500):
                peer.socket.sendto(hello, peer.target)
                answer = await peer.receive_datagram()
                assert len(answer) == 60 < len(hello)
            peer.send_all([b"junk", b"", hello[:-1]])
            await until(lambda: listener.stats().datagrams_in == 503)
            assert peer.take_datagram() is None
        stats = listener.stats()
        assert (stats.accepted, stats.refused, stats.shutdown_counts) == (0, 0, {})
        assert (stats.datagrams_answered, stats.datagrams_dropped) == (500, {"dtls": 3})
        assert len(listener._site.registry) == 0


async def test_a_false_hello_of_a_peer_with_a_connection_counts_as_dropped(dtls: DtlsOptions) -> None:
    async with serving(dtls) as listener:
        with Peer(listener) as peer:
            await peer.shake()
            [hello] = Client().hello()
            before = drops(listener)["dtls"]
            peer.send_all([hello[:-1]])
            await until(lambda: drops(listener)["dtls"] == before + 1)
            assert listener.stats().datagrams_answered == 1
            assert await peer.ask(b"still there") == b"still there"
        assert_all_accounted_for(listener.stats())


@pytest.mark.parametrize("address", ["dtls://127.0.0.1:0", "dtls://*:0"], ids=["one address", "all"])
async def test_one_turn_of_the_event_loop_takes_sixteen_datagrams(dtls: DtlsOptions, address: str) -> None:
    async with open_listener("dtls", address, echo, dtls=dtls) as listener:
        port = listener._site.ports[0]
        assert isinstance(port, DatagramPort)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            for _ in range(40):
                client.sendto(b"each might be a hello that takes a signature", ("127.0.0.1", port.bound[1]))
            taken = [port.on_readable() for _ in range(3)]  # before the event loop has its turn
        assert taken == [16, 16, 8]


async def test_a_flood_of_false_hellos_keeps_nobody_out(dtls: DtlsOptions) -> None:
    async with serving(dtls, max_connections=2, max_handshaking=1, max_conn_rate="1/h burst 2") as listener:
        with Peer(listener) as before, Peer(listener) as after:
            await (await before.shake()).ask(b"hello")
            send_false_hellos(listener.addresses[0], 25)  # which any kernel's buffer holds; and their code is there
            await until(lambda: listener.stats().datagrams_answered == 26)
            tracemalloc.start()
            try:
                first, _ = tracemalloc.get_traced_memory()
                for _ in range(80):
                    answered = listener.stats().datagrams_answered
                    send_false_hellos(listener.addresses[0], 25)
                    await until(lambda: listener.stats().datagrams_answered == answered + 25)  # noqa: B023
                last, _ = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert last - first < 200_000  # for 2,000 of them; the tests themselves take some
            await after.shake()
            for peer in (before, after):
                assert await peer.ask(b"still there") == b"still there"
        assert listener.stats().accepted == 2
        assert listener.stats().refused == 0


@pytest.mark.slow
async def test_handshakes_and_messages_get_through_a_network_that_loses_a_tenth(dtls: DtlsOptions) -> None:
    async with serving(dtls) as listener:
        assert listener.port is not None
        impairment = Impairment(loss=0.1, duplicate=0.05, reorder=0.1, seed=5)
        async with lossy_link("127.0.0.1", listener.port, impairment) as target:
            peers = [Peer(listener, Client(mtu=400)) for _ in range(8)]
            async with anyio.create_task_group() as tasks:
                for peer in peers:
                    peer.target = target
                    tasks.start_soon(peer.shake_patiently)
            await until(lambda: len(listener.connections) == 8)
            for peer in peers:
                peer.send(*(b"%d" % number for number in range(20)))
            await until(lambda: listener.stats().datagrams_delivered > 100)
            assert impairment.lost > 3
            for peer in peers:
                peer.socket.close()
        assert_all_accounted_for(listener.stats())


async def test_a_denied_peer_gets_no_answer_and_is_counted(dtls: DtlsOptions) -> None:
    async with serving(dtls, access_rules=["deny 127.0.0.9", "allow all"]) as listener:
        with Peer(listener, source="127.0.0.9") as denied, Peer(listener) as peer:
            denied.send_all(denied.client.hello())
            await (await peer.shake()).ask(b"hello")
            assert denied.take_datagram() is None
        assert drops(listener)["forbidden"] == 1


@pytest.mark.parametrize("limit", [{"max_connections": 1}, {"max_connections_per_source": 1}, {"max_conn_rate": "1/h"}])
async def test_limits_hold_for_peers_that_have_proven_their_address(dtls: DtlsOptions, limit: dict[str, Any]) -> None:
    async with serving(dtls, **limit) as listener:
        with Peer(listener) as first, Peer(listener) as second:
            await first.shake()
            for _ in range(3):  # false ones spend nothing
                second.send_all(Client().hello())
                await second.receive_datagram()
            second.send_all(second.client.hello())
            second.client.feed(await second.receive_datagram())
            second.send_all(second.client.take())
            await until(lambda: listener.stats().refused == 1)
            assert await first.ask(b"hello") == b"hello"
            assert second.take_datagram() is None


async def test_sessions_have_a_bound_of_their_own(certificates: Path) -> None:
    options = DtlsOptions(certfile=certificates / "localhost.pem", max_sessions=1)
    async with serving(options) as listener:
        with Peer(listener) as first, Peer(listener) as second:
            await first.shake()
            second.send_all(second.client.hello())
            second.client.feed(await second.receive_datagram())
            second.send_all(second.client.take())
            await until(lambda: listener.stats().closed_max_limit == 1)
            assert listener.refusals[0].reason == "dtls.max_sessions is 1"
            assert (await listener.explain("192.0.2.7")).decided_by.reason == "dtls.max_sessions is 1, and 1 are open"  # type: ignore[union-attr]
            assert listener.stats().max_connections == 1
            await listener.set_options(dtls={"max_sessions": 2})
            second.start_again()
            await second.shake()


async def test_a_handshake_has_a_deadline(dtls: DtlsOptions) -> None:
    async with serving(dtls, handshake_timeout=0.3) as listener:
        with Peer(listener) as peer:
            peer.send_all(peer.client.hello())
            peer.client.feed(await peer.receive_datagram())
            peer.send_all(peer.client.take())
            assert await reasons(listener) == {"handshake_timeout": 1}
        assert len(listener._site.waiting) == 0


async def test_handshakes_are_bounded_and_those_beyond_are_refused_as_overload(dtls: DtlsOptions) -> None:
    async with serving(dtls, max_handshaking=2) as listener:
        with ExitStack() as open_until_the_end:
            for number in range(4):
                peer = open_until_the_end.enter_context(Peer(listener))
                peer.send_all(peer.client.hello())
                peer.client.feed(await peer.receive_datagram())
                peer.send_all(peer.client.take())
                await until(lambda: sum((listener.stats().accepted, listener.stats().refused)) == number + 1)  # noqa: B023
        stats = listener.stats()
        assert (stats.accepted, stats.closed_overloaded) == (2, 2)


async def test_a_rehearsal_leaves_room_for_the_handshakes_of_those_that_it_lets_in(dtls: DtlsOptions) -> None:
    async with serving(dtls) as listener:
        await listener.rehearse("deny 127.0.0.2", max_handshaking=1)
        with Peer(listener, source="127.0.0.2") as refused, Peer(listener) as peer:
            refused.send_all(refused.client.hello())
            refused.client.feed(await refused.receive_datagram())
            refused.send_all(refused.client.take())
            await until(lambda: listener.stats().accepted == 1)
            await peer.shake()
        report = await listener.get_rehearsal()
        assert report is not None
        assert (report.seen, report.newly_refused) == (2, {"closed_forbidden": 1})


async def test_a_client_without_the_required_certificate_is_refused_and_told(
    certificates: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "esockd_core")
    options = DtlsOptions(certfile=certificates / "localhost.pem", client_ca=certificates / "ca.pem")
    async with serving(options) as listener:
        with Peer(listener) as peer:
            await peer.shake()
            assert "alert" in str(peer.client.error)
            assert await reasons(listener) == {"tls_failed": 1}
            assert listener.connections == ()
    assert "ends (tls_failed): peer did not return a certificate" in caplog.text


async def test_a_failing_function_for_keys_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def fail(identity: str) -> bytes:
        raise RuntimeError(f"no database for {identity}")

    async with serving(DtlsOptions(psk=fail)) as listener:
        with Peer(listener, Client(psk=(b"sensor 7", b"k"))) as peer:
            await peer.shake()
            assert await reasons(listener) == {"tls_failed": 1}
    assert "the function of the option dtls.psk failed: RuntimeError('no database for sensor 7')" in caplog.text


async def test_the_wrong_key_never_gets_in() -> None:
    async with serving(DtlsOptions(psk=KEYS), handshake_timeout=0.5) as listener:
        with Peer(listener, Client(psk=(b"sensor 7", b"wrong"))) as peer:
            peer.send_all(peer.client.hello())
            for _ in range(2):
                peer.client.feed(await peer.receive_datagram())
                peer.send_all(peer.client.take())
            assert await reasons(listener) == {"handshake_timeout": 1}
            assert listener.connections == ()


async def test_a_flight_that_is_not_answered_is_sent_again(dtls: DtlsOptions) -> None:
    async with serving(dtls) as listener:
        with Peer(listener) as peer:
            peer.send_all(peer.client.hello())
            peer.client.feed(await peer.receive_datagram())
            peer.send_all(peer.client.take())
            lost = await peer.receive_datagram()
            again = await peer.receive_datagram()  # a second later, and the client has said nothing
            assert (lost[13], again[13]) == (2, 2)  # ServerHello
            peer.client.feed(again)
            peer.send_all(peer.client.take())
            while not peer.client.handshaken:
                peer.client.feed(await peer.receive_datagram())
                peer.send_all(peer.client.take())
            assert await peer.ask(b"hello") == b"hello"


async def test_a_client_that_starts_again_replaces_its_session(dtls: DtlsOptions) -> None:
    ends: list[str] = []

    async def note_end(connection: DatagramConnection) -> None:
        try:
            await echo(connection)
        except anyio.BrokenResourceError as error:
            ends.append(str(error))

    async with serving(dtls, note_end) as listener:
        with Peer(listener) as peer:
            await (await peer.shake()).ask(b"first")
            [old] = listener.connections
            peer.start_again()
            await peer.shake()
            assert await peer.ask(b"second") == b"second"
            [new] = listener.connections
            assert (new.peername, new.id > old.id) == (old.peername, True)
            assert listener.stats().shutdown_counts == {"replaced": 1}
            assert len(ends) == 1


async def test_a_session_is_replaced_by_nothing_less_than_a_proven_new_hello(dtls: DtlsOptions) -> None:
    async with serving(dtls) as listener:
        with Peer(listener) as peer:
            peer.send_all(peer.client.hello())
            peer.client.feed(await peer.receive_datagram())
            kept = peer.client.take()
            peer.send_all(kept)
            while not peer.client.handshaken:
                peer.client.feed(await peer.receive_datagram())
                peer.send_all(peer.client.take())
            stranger = Client()
            [hello] = stranger.hello()
            peer.socket.sendto(hello, peer.target)  # in the name of the peer
            stranger.feed(await peer.receive_datagram())
            [proven] = stranger.take()
            peer.send_all(kept)  # the hello of this session, once more
            peer.send_all([proven[:-1], proven.replace(b"\x01\x00", b"\x01\x01", 1)])
            assert await peer.ask(b"still there") == b"still there"
            assert len(listener.connections) == 1
            peer.send_all([proven])
            await until(lambda: listener.stats().shutdown_counts == {"replaced": 1})
            seen = drops(listener)["dtls"]
            peer.send_all(kept)  # of an older session: who has kept it cannot end the new one
            await until(lambda: drops(listener)["dtls"] > seen)
            assert len(listener._site.registry) == 1
        assert_all_accounted_for(listener.stats())


async def test_the_peer_says_goodbye_and_the_stream_ends(dtls: DtlsOptions) -> None:
    async with serving(dtls) as listener:
        with Peer(listener) as peer:
            await (await peer.shake()).ask(b"hello")
            peer.send_all(peer.client.close())
            await peer.wait_closed()
            assert await reasons(listener) == {"normal": 1}


@pytest.mark.parametrize("is_callback", [False, True])
async def test_this_side_says_goodbye_when_the_handler_ends(dtls: DtlsOptions, is_callback: bool) -> None:
    class Once(Echo):
        def data_received(self, connection: DatagramConnection, data: bytes) -> None:
            super().data_received(connection, data)
            connection.close_nowait()

    async def once(connection: DatagramConnection) -> None:
        await connection.send(await connection.receive())

    handler: Handler = Once() if is_callback else once
    async with serving(dtls, handler) as listener:
        with Peer(listener) as peer:
            assert await (await peer.shake()).ask(b"hello") == b"hello"
            await peer.wait_closed()
            assert await reasons(listener) == {"normal": 1}


async def test_a_session_that_is_cut_ends_without_a_goodbye(dtls: DtlsOptions) -> None:
    async with serving(dtls) as listener:
        with Peer(listener) as peer, Peer(listener) as other:
            await (await peer.shake()).ask(b"hello")
            await (await other.shake()).ask(b"hello")
            first, second = listener.connections
            await listener.kill_connection(first.id)
            second.abort()
            assert await reasons(listener, 2) == {"killed": 1, "aborted": 1}
            await settle()
            assert peer.take_datagram() is None
            assert other.take_datagram() is None


async def test_a_handler_that_does_not_end_is_cut_without_a_goodbye(dtls: DtlsOptions) -> None:
    async def stay(connection: DatagramConnection) -> None:
        await connection.send(await connection.receive())
        await anyio.sleep_forever()

    async with serving(dtls, stay, shutdown_timeout=0.1) as listener:
        with Peer(listener) as peer:
            await (await peer.shake()).ask(b"hello")
            await listener.close()
            assert listener.stats().shutdown_counts == {"shutdown": 1}
            assert peer.take_datagram() is None


async def test_an_idle_session_ends(dtls: DtlsOptions) -> None:
    async with serving(dtls, idle_timeout=0.4) as listener:
        with Peer(listener) as peer:
            await peer.shake()
            assert await reasons(listener) == {"idle_timeout": 1}


async def test_a_fatal_alert_of_the_peer_breaks_the_session(dtls: DtlsOptions) -> None:
    broken: list[str] = []

    async def wait(connection: DatagramConnection) -> None:
        try:
            await connection.receive()
        except anyio.BrokenResourceError as error:
            broken.append(str(error))
            raise

    async with serving(dtls, wait) as listener:
        with Peer(listener) as peer:
            await peer.shake()
            peer.client.tls.renegotiate()  # which this side refuses, and OpenSSL's takes for a reason to leave
            with pytest.raises(SSL.WantReadError):
                peer.client.tls.do_handshake()
            peer.send_all(peer.client.take())
            peer.client.feed(await peer.receive_datagram())
            assert "no renegotiation" in str(peer.client.error)
            peer.send_all(peer.client.take())
            assert await reasons(listener) == {"reset": 1}
    [reason] = broken
    assert reason.startswith("DTLS: ")
    assert reason.endswith("alert handshake failure")


async def test_what_does_not_fit_into_a_record_is_not_sent(dtls: DtlsOptions) -> None:
    async def send(connection: DatagramConnection) -> None:
        with pytest.raises(DatagramTooLong, match=r"it has 16385 bytes, and DTLS carries 16384"):
            await connection.send(bytes(16_385))
        with pytest.raises(BadValueError, match="no record of DTLS without data"):
            connection.send_nowait(b"")
        await connection.send(b"done")

    async with serving(dtls, send) as listener:
        with Peer(listener) as peer:
            await peer.shake()
            assert await peer.receive() == b"done"


async def test_a_draining_listener_asks_its_sessions_to_end_and_takes_no_new_ones(dtls: DtlsOptions) -> None:
    note = Note()
    async with serving(dtls, note) as listener:
        with Peer(listener) as peer, Peer(listener) as late:
            await peer.shake()
            await until(lambda: "made" in note.told)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(listener.close)
                await peer.wait_closed()
                late.send_all(late.client.hello())
            await settle()
            assert late.take_datagram() is None
    assert "drain" in note.told
    assert listener.stats().shutdown_counts == {"shutdown": 1}


async def test_a_suspended_listener_keeps_its_sessions_and_greets_nobody(dtls: DtlsOptions) -> None:
    async with serving(dtls) as listener:
        with Peer(listener) as peer, Peer(listener) as late:
            await (await peer.shake()).ask(b"hello")
            await listener.suspend()
            late.send_all(late.client.hello())
            assert await peer.ask(b"still there") == b"still there"
            assert late.take_datagram() is None
            await listener.resume()
            late.start_again()
            await late.shake()


async def test_sessions_survive_new_sockets(dtls: DtlsOptions) -> None:
    async with serving(dtls) as listener:
        with Peer(listener) as peer:
            await (await peer.shake()).ask(b"hello")
            await listener.reopen()
            assert await peer.ask(b"still there") == b"still there"


def subject(peer: Peer) -> str:
    shown = peer.client.tls.get_peer_certificate(as_cryptography=True)
    assert shown is not None
    return str(shown.extensions)


async def test_new_certificates_are_for_new_sessions(dtls: DtlsOptions, certificates: Path) -> None:
    async with serving(dtls) as listener:
        with Peer(listener) as old, Peer(listener) as new:
            await old.shake()
            plan = await listener.set_options(dtls={"certfile": certificates / "other.example.org.pem"})
            assert [change.effect for change in plan.changes] == ["new connections"]
            await new.shake()
            assert "localhost" in subject(old)
            assert "other.example.org" in subject(new)
            for peer in (old, new):
                assert await peer.ask(b"hello") == b"hello"


async def test_files_are_read_again_on_request(certificates: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.pem"
    own.write_bytes((certificates / "localhost.pem").read_bytes())
    async with serving(DtlsOptions(certfile=own)) as listener:
        own.write_bytes((certificates / "other.example.org.pem").read_bytes())
        await listener.set_tls()
        with Peer(listener) as one, Peer(listener) as other:
            assert "other.example.org" in subject(await one.shake())
            own.write_text("spoilt")
            with pytest.raises(InvalidOption, match="holds no certificate"):
                await listener.set_tls()
            assert "other.example.org" in subject(await other.shake())


async def test_a_change_that_is_wrong_changes_nothing(dtls: DtlsOptions) -> None:
    async with serving(dtls) as listener:
        before = listener.options
        for changes in ({"dtls": {"verify": "required"}}, {"dtls": None}, {"tls": {"certfile": dtls.certfile}}):
            with pytest.raises(InvalidOption):
                await listener.set_options(**changes)
        assert listener.options == before
        with Peer(listener) as peer:
            assert await (await peer.shake()).ask(b"hello") == b"hello"


@pytest.mark.parametrize(
    ("address", "given", "words"),
    [
        ("dtls://127.0.0.1:0", (), r"dtls is None.*needs the option dtls|needs the option dtls"),
        ("udp://127.0.0.1:0", ("dtls",), "it does nothing for udp://127.0.0.1:0. Write dtls://127.0.0.1:0."),
        ("127.0.0.1:0", ("dtls",), "it does nothing for 127.0.0.1:0. Give the option tls."),
        ("dtls://127.0.0.1:0", ("tls", "dtls"), "it does nothing for dtls://127.0.0.1:0. Give the option dtls."),
    ],
)
async def test_address_and_options_have_to_agree(
    dtls: DtlsOptions, tls: Any, address: str, given: tuple[str, ...], words: str
) -> None:
    options: dict[str, Any] = {"tls": tls, "dtls": dtls}
    with pytest.raises(InvalidOption, match=words):
        Listener("dtls", address, echo, ListenerOptions(**{name: options[name] for name in given}))


async def test_ids_of_sessions_cannot_be_read_of_what_is_encrypted(dtls: DtlsOptions) -> None:
    options = ListenerOptions(dtls=dtls, udp=UdpOptions(session_id=lambda datagram: datagram[:4]))
    with pytest.raises(InvalidOption, match=r"^udp\.session_id .*what comes is encrypted"):
        Listener("dtls", "dtls://127.0.0.1:0", echo, options)


@pytest.mark.parametrize("anyio_backend", [("trio", {})], ids=["trio"])
async def test_the_client_of_trio_is_served(dtls: DtlsOptions) -> None:
    async with serving(dtls) as listener:
        sock = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
        with trio.DTLSEndpoint(sock) as endpoint:
            channel = endpoint.connect(("127.0.0.1", listener.port or 0), SSL.Context(SSL.DTLS_CLIENT_METHOD))
            await channel.send(b"hello")
            assert await channel.receive() == b"hello"


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_comes_in_the_middle_of_handshakes_hurts_nobody_else(dtls: DtlsOptions, seed: int) -> None:
    dice = random.Random(seed)
    async with serving(dtls, handshake_timeout=1) as listener:
        with ExitStack() as open_peers:  # until the end: the kernel would give their ports to others
            honest = open_peers.enter_context(Peer(listener))
            await (await honest.shake()).ask(b"hello")
            for _ in range(20):
                peer = open_peers.enter_context(Peer(listener))
                peer.send_all(peer.client.hello())
                peer.client.feed(await peer.receive_datagram())
                peer.send_all(peer.client.take())
                flight = await peer.receive_datagram()
                peer.client.feed(flight)
                for datagram in [*peer.client.take(), flight]:
                    changed = bytearray(datagram)
                    for _ in range(dice.randrange(1, 6)):
                        changed[dice.randrange(len(changed))] = dice.randrange(256)
                    peer.send_all([bytes(changed), dice.randbytes(dice.randrange(1, 200))])
            assert await honest.ask(b"still there") == b"still there"
            await until(
                lambda: not listener._site.registry.entering
            )  # some got through, changed where it does not matter
            assert len(listener._site.waiting) == 0
        assert_all_accounted_for(listener.stats())
        assert set(listener.stats().shutdown_counts) <= {"tls_failed", "handshake_timeout", "normal", "shutdown"}


async def test_many_clients_shake_hands_at_once(dtls: DtlsOptions) -> None:
    async with serving(dtls) as listener:
        peers = [Peer(listener) for _ in range(30)]  # both sides of all handshakes are one thread's work

        async def talk(peer: Peer) -> None:
            await peer.shake()
            assert await peer.ask(b"hello") == b"hello"

        async with anyio.create_task_group() as tasks:
            for peer in peers:
                tasks.start_soon(talk, peer)
        assert len(listener.connections) == 30
        for peer in peers:
            peer.socket.close()
        assert_all_accounted_for(listener.stats())
        assert listener.stats().handshakes.count == 30


async def test_certificates_by_name(certificates: Path) -> None:
    other = TlsCertificate(certfile=certificates / "other.example.org.pem")
    options = DtlsOptions(certfile=certificates / "localhost.pem", sni={"other.example.org": other}, mtu=400)
    async with serving(options) as listener:
        other_client, own_client = (Client(server_name=name, mtu=400) for name in ("other.example.org", "localhost"))
        with Peer(listener, other_client) as one, Peer(listener, own_client) as two:
            assert "other.example.org" in subject(await one.shake())
            assert "localhost" in subject(await two.shake())
