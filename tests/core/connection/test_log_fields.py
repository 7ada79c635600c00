"""What a program logs inside a handler says which connection it is about."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from tests.core.conftest import Serve, connect_stream, receive_all, until

from esockd_core import CallbackHandler, ConnectionLogFilter, InvalidOption, StreamConnection, with_log_fields
from esockd_core.testing import memory_connection

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.anyio

program = logging.getLogger("a.program")


class Kept(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def records() -> Iterator[list[logging.LogRecord]]:
    kept = Kept()
    kept.addFilter(ConnectionLogFilter())
    program.addHandler(kept)
    program.setLevel(logging.INFO)
    yield kept.records
    program.removeHandler(kept)
    program.setLevel(logging.NOTSET)


def fields(record: logging.LogRecord) -> tuple[Any, Any, Any]:
    return tuple(vars(record).get(name) for name in ("listener", "connection_id", "peer"))  # type: ignore[return-value]


async def log_in_a_task(connection: StreamConnection, *, prefix: str = "") -> None:
    async def log(text: bytes) -> None:
        program.info("%s%s", prefix, text.decode())

    async for line in connection.lines():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(log, line)


class Logging(CallbackHandler):
    def data_received(self, connection: StreamConnection, data: bytes) -> None:
        program.info(data.decode().strip())


@pytest.mark.parametrize("handler", [log_in_a_task, partial(log_in_a_task, prefix=""), Logging()])
async def test_records_made_inside_a_handler_say_which_connection_they_are_about(
    serve: Serve, records: list[logging.LogRecord], handler: Any
) -> None:
    async with serve(with_log_fields(handler)) as (listener, first), await connect_stream(listener) as second:
        await until(lambda: len(listener.connections) == 2)
        for text in (b"one\n", b"three\n"):
            await first.send(text)
            await until(lambda: len(records) % 2)
            await second.send(b"two\n")
            await until(lambda: not len(records) % 2)
        program.info("outside")
        expected = {("test", each.id, each.peername) for each in listener.connections}
    assert [record.getMessage() for record in records] == ["one", "two", "three", "two", "outside"]
    assert {fields(records[0]), fields(records[1])} == expected
    assert fields(records[0]) == fields(records[2])
    assert fields(records[1]) == fields(records[3])
    assert fields(records[4]) == (None, None, None)


async def test_what_a_record_says_itself_stays(serve: Serve, records: list[logging.LogRecord]) -> None:
    async def handle(connection: StreamConnection) -> None:
        program.info("mine", extra={"peer": "somebody else"})

    async with serve(with_log_fields(handle)) as (_, client):
        await receive_all(client)
    assert fields(records[0])[::2] == ("test", "somebody else")


async def test_a_connection_in_memory_leaves_nothing_in_the_context_of_its_test(
    records: list[logging.LogRecord],
) -> None:
    connection = memory_connection()
    await connection.peer.send(b"inside\n")
    await connection.peer.send_eof()
    assert await connection.serve(with_log_fields(log_in_a_task)) == "normal"
    program.info("outside")
    assert [fields(record)[0] for record in records] == ["memory", None]


async def test_every_callback_is_passed_on(serve: Serve, records: list[logging.LogRecord]) -> None:
    class Whole(CallbackHandler):
        def connection_made(self, connection: StreamConnection) -> None:
            program.info("made")
            connection.send_nowait(b"+")

        def eof_received(self, connection: StreamConnection) -> None:
            program.info("eof")
            super().eof_received(connection)

        def connection_lost(self, connection: StreamConnection, error: Exception | None) -> None:
            program.info("lost %s", error)

    async with serve(with_log_fields(Whole())) as (_, client):
        await client.send_eof()
        assert await receive_all(client) == b"+"
    assert [record.getMessage() for record in records] == ["made", "eof", "lost None"]
    assert len({fields(record) for record in records}) == 1


def test_what_is_no_handler_is_refused() -> None:
    with pytest.raises(InvalidOption):
        with_log_fields(None)  # type: ignore[call-overload]
