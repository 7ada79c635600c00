"""How DTLS sessions end: with a goodbye, without one, and by a client that starts again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest
from OpenSSL import SSL
from tests.core.conftest import reasons, settle, until
from tests.core.datagrams.udp import Echo, Note, assert_all_accounted_for, drops, echo
from tests.core.dtls.conftest import serving
from tests.core.dtls.peers import Client, Peer

if TYPE_CHECKING:
    from esockd_core import DatagramConnection, DtlsOptions, Handler

pytestmark = pytest.mark.anyio


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
