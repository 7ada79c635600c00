"""Several datagrams in one call of the kernel: what it gives, and what becomes of each in a listener."""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from typing import TYPE_CHECKING, Any

import anyio.lowlevel
import pytest
from tests.core.conftest import ASYNCIO_ONLY, until
from tests.core.datagrams.test_turns import in_a_callback, take
from tests.core.datagrams.udp import Client, Note, assert_all_accounted_for, drops, echo
from tests.ports import steady_port

from esockd_core import DatagramConnection, Listener, UdpOptions, open_listener
from esockd_core._connection.port import BATCH, PROBE_EVERY, DatagramPort
from esockd_core._platform import datagram_batch
from esockd_core._platform.datagram_batch import (
    NAME_BYTES,
    SLOTS,
    DatagramBatch,
    address_in,
    ancillary_in,
    batches_work,
)
from esockd_core._platform.packet_info import ANCILLARY_BYTES, ask_for_local_address

if TYPE_CHECKING:
    from collections.abc import Iterator

needs_recvmmsg = pytest.mark.skipif(not batches_work(), reason="the system has no recvmmsg(2)")
pytestmark = needs_recvmmsg

ADDRESS = "udp://127.0.0.1:0"
ADDRESSES = pytest.mark.parametrize("address", [ADDRESS, "udp://*:0"], ids=["one address", "all"])


@pytest.fixture(params=["127.0.0.1", "::1"])
def sockets(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A socket that is bound to all addresses, and one that is connected to it."""
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as server, socket.socket(family, socket.SOCK_DGRAM) as client:
        server.bind(("", 0))
        server.setblocking(False)
        client.connect((request.param, server.getsockname()[1]))
        yield server, client


def port_of(listener: Listener) -> DatagramPort:
    port = listener._site.ports[0]
    assert isinstance(port, DatagramPort)
    return port


async def burst(listener: Listener, *clients: Client) -> None:
    """Let clients become known as those that come several at a time."""
    for _ in range(3):
        for client in clients:
            client.send(b"x", b"x")
        take(listener)
        for client in clients:
            assert [await client.receive() for _ in range(2)] == [b"x", b"x"]


# What one call gives


def test_a_call_gives_each_datagram_whole_with_its_size(sockets: tuple[socket.socket, socket.socket]) -> None:
    server, client = sockets
    batch = DatagramBatch(1_000, NAME_BYTES[server.family])
    sent = [b"", b"one", bytes(1_000), b"two", b"x" * 1_001, b""]
    for each in sent:
        client.send(each)
    taken = list(batch.take(server.fileno()))
    assert [datagram for datagram, _, _ in taken] == [each[:1_000] for each in sent]
    assert [size for _, size, _ in taken] == [0, 3, 1_000, 3, 1_000, 0]
    assert not batch.is_full


def test_a_second_call_leaves_alone_what_the_first_gave(sockets: tuple[socket.socket, socket.socket]) -> None:
    server, client = sockets
    batch = DatagramBatch(100, NAME_BYTES[server.family])
    for number in range(2 * SLOTS):
        client.send(b"%d" % number)
    first = batch.take(server.fileno())
    assert batch.is_full
    second = batch.take(server.fileno())
    assert [datagram for datagram, _, _ in (*first, *second)] == [b"%d" % number for number in range(2 * SLOTS)]


def test_an_origin_is_what_python_says_of_a_sender(sockets: tuple[socket.socket, socket.socket]) -> None:
    server, client = sockets
    assert ask_for_local_address(server)
    batch = DatagramBatch(100, NAME_BYTES[server.family], ANCILLARY_BYTES)
    for _ in range(3):
        client.send(b"x")
    _, ancillary, _, address = server.recvmsg(100, ANCILLARY_BYTES)
    for _ in range(2):
        origins = [origin for _, _, origin in batch.take(server.fileno())]
        assert [address_in(each) for each in origins] == [address] * len(origins)
        assert [ancillary_in(each, NAME_BYTES[server.family]) for each in origins] == [ancillary] * len(origins)
        client.send(b"x")  # the kernel has written over the room that it was told


def test_an_origin_has_no_ancillary_data_if_the_kernel_told_none(sockets: tuple[socket.socket, socket.socket]) -> None:
    server, client = sockets
    batch = DatagramBatch(100, NAME_BYTES[server.family], ANCILLARY_BYTES)
    client.send(b"x")
    ((_, _, origin),) = batch.take(server.fileno())
    assert ancillary_in(origin, NAME_BYTES[server.family]) == []


def test_the_scope_of_an_address_is_part_of_it() -> None:
    family, scope = struct.pack("=H", socket.AF_INET6), struct.pack("=I", 7)
    packed = family + struct.pack("!HI", 5_000, 0) + socket.inet_pton(socket.AF_INET6, "fe80::1") + scope + bytes(4)
    assert address_in(packed) == ("fe80::1", 5_000, 0, 7)


def test_an_empty_queue_and_a_closed_socket_are_told_as_python_does() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        batch = DatagramBatch(100, 16)
        server.bind(("127.0.0.1", 0))
        with pytest.raises(BlockingIOError):
            batch.take(server.fileno())
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        batch.take(server.fileno())
    assert caught.value.errno == errno.EBADF


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EPERM])
def test_a_system_that_refuses_the_call_is_found_out(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> int:
        ctypes.set_errno(code)
        return -1

    monkeypatch.setattr(datagram_batch, "_recvmmsg", refuse)
    assert not batches_work.__wrapped__()


def test_a_system_without_the_call_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datagram_batch, "_recvmmsg", None)
    assert not batches_work.__wrapped__()


def test_a_system_with_other_structures_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datagram_batch, "_recvmmsg", lambda *_: 2)
    assert not batches_work.__wrapped__()


# A listener


@ADDRESSES
@pytest.mark.anyio
async def test_several_that_wait_are_taken_by_one_call(address: str, way: str) -> None:
    async with open_listener("udp", address, echo) as listener:
        with Client(listener) as one, Client(listener) as other:
            await burst(listener, one, other)
            assert (port_of(listener)._many is not None) is (way == "by one call")
            assert_all_accounted_for(listener.stats(), sent=12)
        assert drops(listener) == {}


@pytest.mark.anyio
async def test_those_that_come_one_by_one_are_taken_alone_until_the_next_look() -> None:
    async with open_listener("udp", ADDRESS, echo) as listener:
        with Client(listener) as client:
            await burst(listener, client)
            port = port_of(listener)
            budgets = []
            for _ in range(2 * PROBE_EVERY):
                assert await client.ask(b"x") == b"x"
                budgets.append(port._budget)
            assert budgets[0] == 1
            assert BATCH in budgets


@ADDRESSES
@pytest.mark.anyio
async def test_an_address_whose_peer_has_ended_is_that_of_a_new_one(address: str, way: str) -> None:
    note = Note()
    async with open_listener("udp", address, note) as listener:
        with Client(listener) as one, Client(listener) as other:
            for number in range(3):
                one.send(b"one %d" % number)
                other.send(b"other")
                take(listener)
            listener.connections[0].abort()
            one.send(b"new")
            other.send(b"other")
            take(listener)
            await until(lambda: listener.stats().current_connections == 2)
            assert note.told.count("made") == 3
            assert [each for each in note.told if type(each) is not tuple][-3:] == ["made", b"new", b"other"]
            listener.connections[-1].abort()
            listener.connections[0].abort()
            await until(lambda: listener.stats().current_connections == 0)
            assert port_of(listener)._known == {}
        assert_all_accounted_for(listener.stats(), sent=8)


@pytest.mark.anyio
async def test_a_peer_that_ends_in_the_middle_leaves_the_rest_to_a_new_one(way: str) -> None:
    async def one_each(connection: DatagramConnection) -> None:
        while True:
            datagram = await connection.receive()
            await connection.send(datagram)
            if datagram == b"end":
                return

    async with open_listener("udp", ADDRESS, one_each) as listener:
        with Client(listener) as client, Client(listener) as other:
            await burst(listener, client, other)
            client.send(b"a", b"end")
            other.send(b"b")
            take(listener)
            await until(lambda: listener.stats().current_connections == 1)
            client.send(b"c")
            other.send(b"d")
            take(listener)
            assert [await client.receive() for _ in range(3)] == [b"a", b"end", b"c"]
            assert listener.stats().accepted == 3
        assert_all_accounted_for(listener.stats(), sent=17)


@ASYNCIO_ONLY
@ADDRESSES
@pytest.mark.anyio
async def test_a_handler_may_let_the_port_be_read_in_its_turn(address: str, way: str) -> None:
    seen: list[bytes] = []

    async def note(connection: DatagramConnection) -> None:
        async for datagram in connection:
            seen.append(datagram)
            await connection.send(datagram)
            if datagram == b"2":
                late.send(*(b"late %d" % number for number in range(3)))
                take(listener)

    async with open_listener("udp", address, note) as listener:
        with Client(listener) as client, Client(listener) as other, Client(listener) as late:
            await burst(listener, client, other, late)
            seen.clear()

            def turn() -> None:
                for number in range(6):
                    (client, other)[number % 2].send(b"%d" % number)
                take(listener)

            await in_a_callback(turn)
            for each, number in ((client, 3), (other, 3), (late, 3)):
                assert len([await each.receive() for _ in range(number)]) == number
            assert sorted(seen) == sorted([b"%d" % number for number in range(6)] + [b"late %d" % n for n in range(3)])
            assert_all_accounted_for(listener.stats(), sent=27)
        assert drops(listener) == {}


@ADDRESSES
@pytest.mark.anyio
async def test_what_was_taken_is_accounted_for_if_the_listener_closes_in_the_middle(address: str, way: str) -> None:
    async def close(connection: DatagramConnection) -> None:
        async for datagram in connection:
            if datagram == b"close":
                closing.start_soon(listener.close)
                await anyio.lowlevel.checkpoint()
            await connection.send(datagram)

    async with anyio.create_task_group() as closing, open_listener("udp", address, close) as listener:
        with Client(listener) as client, Client(listener) as other, Client(listener) as stranger:
            await burst(listener, client, other)
            for number in range(20):
                client.send(b"%d" % number)
                other.send(b"close" if number == 5 else b"%d" % number)
            stranger.send(b"new")
            await until(lambda: listener.state == "closed")
        assert listener.failure is None
        assert_all_accounted_for(listener.stats(), sent=53)


@pytest.mark.anyio
async def test_limits_and_lengths_hold_for_those_that_come_together(way: str) -> None:
    limits = UdpOptions(max_datagram_bytes=8, max_packet_rate_per_peer="1/h burst 7")
    async with open_listener("udp", ADDRESS, echo, udp=limits) as listener:
        with Client(listener) as one, Client(listener) as other:
            await burst(listener, one, other)
            one.send(b"123456789", b"last", b"too many", b"too many")
            take(listener)
            assert await one.receive() == b"last"
            await until(lambda: drops(listener) == {"too_long": 1, "packet_rate": 2})
            assert one.received() == []
            assert_all_accounted_for(listener.stats(), sent=16)


@pytest.mark.anyio
async def test_live_changes_hold_for_those_that_come_together(way: str) -> None:
    async with open_listener("udp", ADDRESS, echo, udp={"max_datagram_bytes": 8}) as listener:
        with Client(listener) as client, Client(listener) as stranger:
            await burst(listener, client)
            await listener.set_options(udp={"max_datagram_bytes": 4_000})
            client.send(bytes(4_000), bytes(4_001), b"x")
            take(listener)
            assert [await client.receive() for _ in range(2)] == [bytes(4_000), b"x"]
            await burst(listener, client)
            assert (port_of(listener)._many is not None) is (way == "by one call")
            await listener.suspend()
            stranger.send(b"x", b"x")
            await burst(listener, client)
            await until(lambda: drops(listener) == {"too_long": 1, "suspended": 2})
            assert_all_accounted_for(listener.stats(), sent=23)


@ADDRESSES
@pytest.mark.anyio
async def test_peers_are_known_on_the_next_socket_too(address: str, way: str) -> None:
    async with open_listener("udp", address.replace(":0", f":{steady_port()}"), echo) as listener:
        with Client(listener) as one, Client(listener) as other:
            await burst(listener, one, other)
            await listener.reopen()
            await burst(listener, one, other)
            assert listener.stats().accepted == 2
        assert_all_accounted_for(listener.stats(), sent=24)


@pytest.mark.anyio
async def test_without_memory_for_it_they_are_taken_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr("esockd_core._connection.port.DatagramBatch", refuse)
    async with open_listener("udp", ADDRESS, echo) as listener:
        with Client(listener) as one, Client(listener) as other:
            await burst(listener, one, other)
            assert port_of(listener)._many is None
        assert_all_accounted_for(listener.stats(), sent=12)
