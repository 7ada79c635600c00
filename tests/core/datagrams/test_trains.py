"""Several datagrams at once: in trains where the kernel has them, and the same datagrams where it has not."""

from __future__ import annotations

import errno
from itertools import pairwise
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from tests.core.datagrams.udp import Client
from tests.patience import PATIENCE_S

from esockd_core import CallbackHandler, DatagramConnection, DatagramTooLong, open_listener
from esockd_core._connection import port as ports
from esockd_core._connection.datagram_sending import trains
from esockd_core.testing import memory_datagrams

pytestmark = pytest.mark.anyio

ADDRESSES = pytest.mark.parametrize("address", ["udp://127.0.0.1:0", "udp://*:0"], ids=["one address", "all"])
SIZES = [100, 100, 100, 40, 200, 200, 0, 0, 7]


def datagrams_of(sizes: list[int]) -> list[bytes]:
    return [bytes([number]) * size for number, size in enumerate(sizes)]


async def answer(connection: DatagramConnection) -> None:
    async for _ in connection:
        await connection.send_many(datagrams_of(SIZES))


class Answer(CallbackHandler[DatagramConnection]):
    def data_received(self, connection: DatagramConnection, data: bytes) -> None:
        assert connection.send_many_nowait(datagrams_of(SIZES)) == len(SIZES)


@pytest.mark.parametrize("has_trains", [True, False], ids=["trains", "no trains"])
@pytest.mark.parametrize("handler", [answer, Answer()], ids=["coroutine", "callback"])
@ADDRESSES
async def test_datagrams_arrive_in_their_order_with_their_boundaries(
    address: str, handler: Any, has_trains: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_trains:
        monkeypatch.setattr(ports, "takes_trains", lambda _: False)
    async with open_listener("udp", address, handler) as listener:
        with Client(listener) as client:
            client.send(b"x")
            assert [await client.receive() for _ in SIZES] == datagrams_of(SIZES)
            (connection,) = listener.connections
            assert isinstance(connection, DatagramConnection)
            assert (connection.datagrams_out, connection.bytes_out) == (len(SIZES), sum(SIZES))


async def test_datagrams_in_memory_are_sent_one_by_one() -> None:
    async with memory_datagrams(answer) as network:
        peer = network.peer()
        await peer.send(b"x")
        with anyio.fail_after(PATIENCE_S):
            assert [await peer.receive() for _ in SIZES] == datagrams_of(SIZES)


async def test_a_train_that_fails_is_sent_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EINVAL, "longer than the MTU")

    monkeypatch.setattr(ports.DatagramPort, "send_train", refuse)
    async with open_listener("udp", "udp://127.0.0.1:0", answer) as listener:
        with Client(listener) as client:
            client.send(b"x")
            assert [await client.receive() for _ in SIZES] == datagrams_of(SIZES)
        assert listener.stats().datagrams_unsent == {}


async def test_what_there_is_no_room_for_is_told_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []

    def refuse(*_: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "full")

    class Count(CallbackHandler[DatagramConnection]):
        def data_received(self, connection: DatagramConnection, data: bytes) -> None:
            told.append(connection.send_many_nowait([b"first", b"", b"same", b"size"]))

    monkeypatch.setattr(ports.DatagramPort, "send_train", refuse)
    async with open_listener("udp", "udp://127.0.0.1:0", Count()) as listener:
        with Client(listener) as client:
            client.send(b"x")
            assert [await client.receive() for _ in range(2)] == [b"first", b""]
        assert told == [2]
        assert listener.stats().datagrams_unsent == {"EAGAIN": 2}


async def test_one_that_is_too_long_is_an_error_and_those_before_it_are_sent() -> None:
    async def answer_too_long(connection: DatagramConnection) -> None:
        async for _ in connection:
            with pytest.raises(DatagramTooLong):
                await connection.send_many([b"a", b"b", bytes(70_000), b"c"])
            await connection.send(b"end")

    async with open_listener("udp", "udp://127.0.0.1:0", answer_too_long) as listener:
        with Client(listener) as client:
            client.send(b"x")
            assert [await client.receive() for _ in range(3)] == [b"a", b"b", b"end"]


@pytest.mark.parametrize("has_trains", [True, False], ids=["trains", "no trains"])
async def test_other_tasks_have_their_turn_while_very_many_are_sent(
    has_trains: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_trains:
        monkeypatch.setattr(ports, "takes_trains", lambda _: False)
    sent_before: list[int] = []  # each turn
    done = anyio.Event()

    async def send_very_many(connection: DatagramConnection) -> None:
        async def take_turns() -> None:
            while True:
                sent_before.append(connection.datagrams_out)
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(take_turns)
            await anyio.lowlevel.checkpoint()
            await connection.send_many(b"x" for _ in range(1_000))
            tasks.cancel_scope.cancel()
        assert connection.datagrams_out == 1_000
        done.set()

    async with open_listener("udp", "udp://127.0.0.1:0", send_very_many) as listener:
        with Client(listener) as client, anyio.fail_after(60):
            client.send(b"go")
            await done.wait()
    assert max(after - before for before, after in pairwise([*sent_before, 1_000])) <= 128


@pytest.mark.parametrize(
    ("sizes", "found"),
    [
        ([], []),
        ([5], [1]),
        ([5, 5, 5], [3]),
        ([5, 5, 3, 5], [3, 1]),
        ([5, 6, 6], [1, 2]),
        ([5, 5, 0, 5], [2, 1, 1]),
        ([0, 0], [1, 1]),
        ([1] * 65, [64, 1]),
        ([1_400] * 64, [46, 18]),
        ([70_000, 70_000], [1, 1]),
    ],
)
def test_a_train_has_datagrams_of_one_size_and_a_shorter_one_at_its_end(sizes: list[int], found: list[int]) -> None:
    datagrams = datagrams_of(sizes)
    assert [len(train) for train in trains(datagrams)] == found
    assert [each for train in trains(datagrams) for each in train] == datagrams
