"""Who gets into a DTLS listener: what strangers send costs little, and limits hold for peers with a proven address."""

from __future__ import annotations

import logging
import random
import socket
import tracemalloc
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from tests.core.conftest import reasons, until
from tests.core.datagrams.udp import assert_all_accounted_for, drops, echo
from tests.core.dtls.conftest import KEYS, serving
from tests.core.dtls.peers import Client, Peer

from esockd_core import DtlsOptions, open_listener
from esockd_core._connection.port import DatagramPort
from esockd_core.testing import send_false_hellos

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = pytest.mark.anyio


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
