"""The kit for tests of datagram handlers: peers in memory, and networks that lose, double and reorder."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from tests.core.conftest import settle
from tests.core.datagrams.udp import Client, Echo, Note, assert_all_accounted_for, echo

from esockd_core import DatagramConnection, DatagramTooLong, InvalidOption, ListenerOptions, UdpOptions, open_listener
from esockd_core.testing import Impairment, lossy_link, memory_datagrams

pytestmark = pytest.mark.anyio

STYLES = pytest.mark.parametrize("handler", [echo, Echo()], ids=["coroutine", "callback"])


@STYLES
async def test_peers_in_memory_are_served_as_by_a_listener(handler: Any) -> None:
    with anyio.fail_after(30):
        async with memory_datagrams(handler, options=ListenerOptions(max_connections=2)) as network:
            one, other, third = network.peer(), network.peer(("192.0.2.7", 5)), network.peer()
            await one.send(b"1")
            other.send_nowait(b"")
            assert (await one.receive(), await other.receive()) == (b"1", b"")
            await third.send(b"no room")
            stats = network.stats()
            assert (stats.accepted, stats.datagrams_dropped) == (2, {"max_limit": 1})
            assert_all_accounted_for(stats, sent=3)
            assert third.received() == []
            await one.aclose()
            with pytest.raises(anyio.ClosedResourceError):
                await one.send(b"x")
            with pytest.raises(anyio.ClosedResourceError):
                await one.receive()
            with pytest.raises(NotImplementedError):
                await other.send_eof()
        with pytest.raises(anyio.ClosedResourceError):
            other.send_nowait(b"x")


async def test_what_comes_in_memory_is_there_at_once_for_callbacks() -> None:
    note = Note()
    async with memory_datagrams(note) as network:
        network.peer().send_nowait(b"x")
        assert note.told == ["made", b"x"]
    assert note.told == ["made", b"x", "drain", ("lost", None)]


async def test_the_error_of_a_handler_is_raised_at_the_end_of_the_block() -> None:
    async def fails(connection: DatagramConnection) -> None:
        with pytest.raises(DatagramTooLong):
            await connection.send(bytes(65_508))
        raise RuntimeError("as asked")

    with pytest.raises(RuntimeError, match="as asked"):
        async with memory_datagrams(fails) as network:
            await network.peer().send(b"x")
    async with memory_datagrams(fails, raise_failure=False) as network:
        await network.peer().send(b"x")
    assert [str(each) for each in network.failures] == ["as asked"]


async def test_timeouts_are_those_of_the_options() -> None:
    ended = anyio.Event()

    async def handle(connection: DatagramConnection) -> None:
        async for _ in connection:
            pass
        ended.set()

    options = ListenerOptions(udp=UdpOptions(idle_timeout=0.1))
    with anyio.fail_after(30):
        async with memory_datagrams(handle, options=options) as network:
            await network.peer().send(b"x")
            await ended.wait()
            await settle()
            assert network.stats().shutdown_counts == {"idle_timeout": 1}


def test_a_seed_decides_what_is_lost_doubled_and_overtaken() -> None:
    def pass_all() -> list[bytes]:
        impairment = Impairment(loss=0.2, duplicate=0.2, reorder=0.2, seed=7)
        found = [each for number in range(500) for each in impairment.passes(b"%d" % number, "way")]
        assert 50 < impairment.lost < 150
        assert 40 < impairment.duplicated < 130
        assert 40 < impairment.reordered < 130
        return found

    first = pass_all()
    assert first == pass_all()
    numbers = [int(each) for each in first]
    assert numbers != sorted(numbers)
    assert set(numbers) < set(range(500))


def test_without_shares_everything_passes_in_order() -> None:
    impairment = Impairment()
    assert [impairment.passes(b"%d" % number) for number in range(9)] == [[b"%d" % number] for number in range(9)]


@pytest.mark.parametrize("wrong", [{"loss": -0.1}, {"duplicate": 1.1}, {"reorder": 2}])
def test_a_share_is_a_number_from_0_to_1(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match="share from 0 to 1"):
        Impairment(**wrong)


async def reliably(connection: DatagramConnection) -> None:
    """A handler of a protocol with numbers: it answers each as often as it comes."""
    async for datagram in connection:
        await connection.send(b"ack " + datagram)


async def test_a_protocol_that_sends_again_gets_through_a_bad_network_in_memory() -> None:
    impairment = Impairment(loss=0.3, duplicate=0.2, reorder=0.2, seed=3)
    with anyio.fail_after(30):
        async with memory_datagrams(reliably, impairment=impairment) as network:
            peer = network.peer()
            for number in range(100):
                while b"ack %d" % number not in peer.received():
                    await peer.send(b"%d" % number)
                    await anyio.lowlevel.checkpoint()
            assert_all_accounted_for(network.stats())
    assert impairment.lost > 20


async def test_a_bad_network_stands_between_real_clients_and_a_real_listener() -> None:
    impairment = Impairment(loss=0.2, duplicate=0.1, reorder=0.1, seed=5)
    with anyio.fail_after(20):
        async with open_listener("udp", "udp://127.0.0.1:0", reliably) as listener:
            assert listener.port is not None
            async with lossy_link("127.0.0.1", listener.port, impairment) as address:
                with Client(listener) as one, Client(listener) as other:
                    one.target = other.target = address
                    for client in (one, other):
                        for number in range(20):
                            while b"ack %d" % number not in client.received():
                                client.send(b"%d" % number)
                                await anyio.sleep(0.005)
            assert listener.stats().accepted == 2
            assert_all_accounted_for(listener.stats())
    assert impairment.lost > 5
