"""A connection in memory is to its handler what a listener's connection is: messages out of the stream."""

from __future__ import annotations

import logging
import random
from typing import TYPE_CHECKING

import anyio
import pytest
from tests.core.conftest import give_up, settle
from tests.core.testing.conftest import Connect, Notes

from esockd_core import MessageCutShort

if TYPE_CHECKING:
    from esockd_core import StreamConnection

pytestmark = pytest.mark.anyio


async def test_receive_exactly_gives_just_so_many_bytes(connect: Connect) -> None:
    notes = Notes()

    async def handle(connection: StreamConnection) -> None:
        for count in (0, 1, 2, 5):
            await notes.error_of(connection.receive_exactly(count))
        await notes.error_of(connection.receive())

    async with connect(handle) as link:
        for part in (b"a", b"bcde", b"fghi"):
            await link.peer.send(part)
            await settle()
        await link.receive_all()
    assert notes.has("b''", "b'a'", "b'bc'", "b'defgh'", "b'i'")


async def test_receive_until_takes_the_delimiter_and_leaves_what_follows(connect: Connect) -> None:
    notes = Notes()

    async def handle(connection: StreamConnection) -> None:
        await notes.error_of(connection.receive_until(b"\r\n", 100))
        await notes.error_of(connection.receive_until(b"--end--", 100))
        await notes.error_of(connection.receive())

    async with connect(handle) as link:
        await link.peer.send(b"first\r\n\r-\n--en--end--rest")
        await link.receive_all()
    assert notes.has("b'first'", r"b'\r-\n--en'", "b'rest'")


@pytest.mark.parametrize("delimiter", [b"\n", b"\r\n", b"aab", b"=-=-="])
@pytest.mark.parametrize("seed", range(3))
async def test_messages_are_found_however_they_come_and_however_often_the_call_is_cancelled(
    connect: Connect, delimiter: bytes, seed: int
) -> None:
    dice = random.Random(seed)
    letters = delimiter.replace(b"b", b"").replace(b"\n", b"") + b"x"
    sent = [bytes(dice.choices(letters, k=dice.randrange(60))) for _ in range(200)]
    sent = [message for message in sent if delimiter not in message + delimiter[:-1]]
    received: list[bytes] = []

    async def handle(connection: StreamConnection) -> None:
        while len(received) < len(sent):
            with anyio.move_on_after(dice.choice([0, 0.0005, 0.001])):
                received.append(await connection.receive_until(delimiter, 60))

    async with connect(handle, read_buffer_bytes=100) as link:
        stream = delimiter.join(sent) + delimiter
        while stream:
            size = dice.randrange(1, 150)
            await link.peer.send(stream[:size])
            stream = stream[size:]
            await anyio.sleep(dice.choice([0, 0, 0.0005]))
        await link.receive_all()
    assert received == sent


async def test_lines_end_at_an_orderly_end_and_leave_what_was_not_asked_for(connect: Connect) -> None:
    notes = Notes()

    async def handle(connection: StreamConnection) -> None:
        async for line in connection.lines(20):
            notes.append(repr(line))
            if line == b"":
                break
        await notes.error_of(connection.receive_exactly(4))
        notes.extend([repr(line) async for line in connection.lines()])

    async with connect(handle) as link:
        await link.peer.send(b"GET /\r\nHost: a\n\r\nbodymore\n")
        await link.peer.send_eof()
        await link.receive_all()
    assert notes.has("b'GET /'", "b'Host: a'", "b''", "b'body'", "b'more'")
    assert link.reason == "normal"


@pytest.mark.parametrize("size", [1, 99_999, 100_000, 300_000])
async def test_a_message_may_be_larger_than_what_is_held_for_a_handler(connect: Connect, size: int) -> None:
    received: list[bytes] = []

    async def handle(connection: StreamConnection) -> None:
        received.append(await connection.receive_until(b"\n", size))
        received.append(await connection.receive_exactly(size))

    async with connect(handle, read_buffer_bytes=10_000) as link:
        await link.peer.send(b"x" * size + b"\n" + b"y" * size)
        await link.receive_all()
    assert [len(message) for message in received] == [size, size]


@pytest.mark.parametrize("sent", [b"12345678", b"1234567", b"12345678\n9", b"1234567\r\n"])
async def test_a_message_has_no_more_than_max_bytes_before_its_delimiter(connect: Connect, sent: bytes) -> None:
    notes = Notes()

    async def handle(connection: StreamConnection) -> None:
        await connection.receive_until(b"\n", 7)
        notes.append("one")
        await connection.receive_until(b"\n", 7)

    async with connect(handle) as link:
        await link.peer.send(sent + b"0" * 20)
        await link.receive_all()
    assert notes == []
    assert link.reason == "message_too_long"


async def test_a_message_may_have_all_of_max_bytes(connect: Connect) -> None:
    notes = Notes()

    async def handle(connection: StreamConnection) -> None:
        await notes.error_of(connection.receive_until(b"\r\n", 7))

    async with connect(handle) as link:
        await link.peer.send(b"1234567\r")
        await settle()
        await link.peer.send(b"\n")
        await link.receive_all()
    assert notes.has("b'1234567'")


@pytest.mark.parametrize("ask", ["receive_exactly", "receive_until", "lines"])
async def test_a_peer_that_leaves_between_messages_comes_to_an_orderly_end(
    connect: Connect, ask: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "esockd_core")

    async def handle(connection: StreamConnection) -> None:
        while True:
            if ask == "receive_exactly":
                await connection.receive_exactly(4)
            elif ask == "receive_until":
                await connection.receive_until(b"\n", 10)
            else:
                async for _ in connection.lines(10):
                    pass
                return

    async with connect(handle) as link:
        await link.peer.send(b"abc\nabc\n")
        await link.peer.send_eof()
        await link.receive_all()
    assert link.reason == "normal"
    assert not [record for record in caplog.records if "connection" in record.getMessage()]


@pytest.mark.parametrize("ask", ["receive_exactly", "receive_until", "lines", "body"])
async def test_a_peer_that_leaves_within_a_message_cut_it_short_and_is_no_error(
    connect: Connect, ask: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "esockd_core")

    async def handle(connection: StreamConnection) -> None:
        await connection.receive_until(b"\n", 10)
        if ask == "receive_exactly":
            await connection.receive_exactly(4)
        elif ask == "receive_until":
            await connection.receive_until(b"\n", 10)
        elif ask == "lines":
            async for _ in connection.lines(10):
                pass
        else:
            await connection.receive_exactly(3)
            await connection.receive_exactly(4, mid_message=True)

    async with connect(handle) as link:
        await link.peer.send(b"abc\nabc")
        await link.peer.send_eof()
        await link.receive_all()
    assert link.reason == "cut_short"
    (record,) = [record for record in caplog.records if "connection" in record.getMessage()]
    assert (record.levelno, record.exc_info, vars(record)["reason"]) == (logging.INFO, None, "cut_short")


async def test_what_a_peer_sent_before_it_cut_a_message_short_can_be_received(connect: Connect) -> None:
    notes = Notes()

    async def handle(connection: StreamConnection) -> None:
        with pytest.raises(anyio.BrokenResourceError) as caught:
            await connection.receive_exactly(10)
        notes.append(type(caught.value).__name__)
        await notes.error_of(connection.receive())
        await notes.error_of(connection.receive())

    async with connect(handle) as link:
        await link.peer.send(b"abc")
        await link.peer.send_eof()
        await link.receive_all()
    assert notes.has(MessageCutShort.__name__, "b'abc'", "EndOfStream")
    assert link.reason == "normal"


async def test_a_reset_within_a_message_is_told_as_a_reset(connect: Connect) -> None:
    notes = Notes()

    async def handle(connection: StreamConnection) -> None:
        await connection.send(b"!")
        try:
            await connection.receive_exactly(10)
        except anyio.BrokenResourceError as error:
            notes.append(type(error).__name__)
            raise

    async with connect(handle) as link:
        await link.receive_exactly(1)
        await link.peer.send(b"abc")
        await settle()
        await link.reset()
        await notes.until("BrokenResourceError")
    assert link.reason == "reset"


async def test_one_task_receives_messages_at_a_time(connect: Connect) -> None:
    notes = Notes()

    async def handle(connection: StreamConnection) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(notes.error_of, connection.receive_exactly(3))
            await settle()
            await notes.error_of(connection.receive_until(b"\n", 10))
            await connection.send(b"!")

    async with connect(handle) as link:
        await link.receive_exactly(1)
        await link.peer.send(b"xyz")
        await link.receive_all()
    assert notes.has("BusyResourceError", "b'xyz'")


async def test_a_message_of_which_a_part_came_stays_when_the_call_is_cancelled(connect: Connect) -> None:
    notes = Notes()

    async def handle(connection: StreamConnection) -> None:
        await connection.receive_exactly(1)
        for _ in range(3):
            await give_up(lambda: connection.receive_exactly(10))
            await give_up(lambda: connection.receive_until(b"\n", 10))
        await notes.error_of(connection.receive())

    async with connect(handle) as link:
        await link.peer.send(b"-abc")
        await link.receive_all()
    assert notes.has("b'abc'")


@pytest.mark.parametrize(("count", "max_bytes", "delimiter"), [(-1, 0, b"\n"), (1.5, 1.5, b"\n"), ("1", 10, b"")])
async def test_sizes_that_make_no_sense_are_errors(
    connect: Connect, count: int, max_bytes: int, delimiter: bytes
) -> None:
    notes = Notes()

    async def handle(connection: StreamConnection) -> None:
        await notes.error_of(connection.receive_exactly(count))
        await notes.error_of(connection.receive_until(delimiter, max_bytes))

    async with connect(handle) as link:
        await link.receive_all()
    assert notes.has("ValueError", "ValueError")
