"""DTLS listeners: the same handlers as everywhere, and nothing public before the handshake."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest
import trio
from OpenSSL import SSL
from tests.core.conftest import EventCount, until
from tests.core.datagrams.udp import Echo, assert_all_accounted_for, drops, echo
from tests.core.dtls.conftest import KEYS, serving
from tests.core.dtls.peers import Client, Peer

from esockd_core import BadValueError, DatagramConnection, DatagramTooLong, DtlsOptions, Handler
from esockd_core.testing import Impairment, lossy_link

if TYPE_CHECKING:
    from pathlib import Path

    from esockd_core import TlsInfo

pytestmark = pytest.mark.anyio

STYLES = pytest.mark.parametrize("handler", [echo, Echo()], ids=["coroutine", "callback"])


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


@pytest.mark.parametrize("anyio_backend", [("trio", {})], ids=["trio"])
async def test_the_client_of_trio_is_served(dtls: DtlsOptions) -> None:
    async with serving(dtls) as listener:
        sock = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
        with trio.DTLSEndpoint(sock) as endpoint:
            channel = endpoint.connect(("127.0.0.1", listener.port or 0), SSL.Context(SSL.DTLS_CLIENT_METHOD))
            await channel.send(b"hello")
            assert await channel.receive() == b"hello"


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
