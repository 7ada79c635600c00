"""Handlers that do something wrong end their own connection, and nothing else."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from tests.core.conftest import Echo, answer, connect, echo, reasons, rest
from tests.core.connection.strangers import serving

from esockd_core import CallbackHandler, StreamConnection, open_listener

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from esockd_core import Handler

pytestmark = pytest.mark.anyio


class OfTheProgramBuiltOnUs(BaseException):
    """As frameworks have them."""


def wrong_options(connection: Any) -> None:
    connection.start_tls_nowait(None)


def wrong_bytes(connection: Any) -> None:
    connection.send_nowait("text")


def wrong_reason(connection: Any) -> None:
    connection.close_nowait(["x"])


def wrong_abort(connection: Any) -> None:
    connection.abort(7)


def base_exception(connection: Any) -> None:
    raise OfTheProgramBuiltOnUs


def group(connection: Any) -> None:
    raise BaseExceptionGroup("several", [OfTheProgramBuiltOnUs(), ValueError()])


MISTAKES = pytest.mark.parametrize(
    "mistake",
    [wrong_options, wrong_bytes, wrong_reason, wrong_abort, base_exception, group],
    ids=lambda each: each.__name__,
)


class Mistaken(Echo):
    """Echoes, but makes one mistake where the client asks for it."""

    def __init__(self, mistake: Callable[[Any], None], where: str) -> None:
        self.mistake = mistake
        self.where = where
        self.ready = True

    def _at(self, where: str, connection: StreamConnection) -> None:
        if self.where == where and self.ready:
            self.ready = False
            self.mistake(connection)

    def connection_made(self, connection: StreamConnection) -> None:
        self._at("connection_made", connection)

    def data_received(self, connection: StreamConnection, data: bytes) -> None:
        self._at("data_received", connection)
        super().data_received(connection, data)

    def eof_received(self, connection: StreamConnection) -> None:
        self._at("eof_received", connection)
        super().eof_received(connection)

    def connection_lost(self, connection: StreamConnection, error: Exception | None) -> None:
        self._at("connection_lost", connection)


@MISTAKES
@pytest.mark.parametrize("where", ["connection_made", "data_received", "eof_received", "connection_lost"])
async def test_a_mistake_in_a_callback_ends_its_connection_only(mistake: Callable[[Any], None], where: str) -> None:
    async with serving(Mistaken(mistake, where)) as listener:
        with connect(listener) as client, suppress(OSError):
            await answer(client)
            client.shutdown(1)
            await rest(client)
        counted = await reasons(listener)
        if where == "connection_lost":  # it had ended by then
            assert sum(counted.values()) == 1
        else:
            assert counted == {"handler_error": 1}
        with connect(listener) as client:
            assert await answer(client) == b"hello"


@MISTAKES
async def test_a_mistake_in_a_coroutine_ends_its_connection_only(mistake: Callable[[Any], None]) -> None:
    first = True

    async def handler(connection: StreamConnection) -> None:
        nonlocal first
        if first:
            first = False
            if mistake is wrong_options:
                await connection.start_tls(None)  # type: ignore[arg-type]
            mistake(connection)
        await echo(connection)

    async with serving(handler) as listener:
        with connect(listener) as client, suppress(OSError):
            await rest(client)
        assert await reasons(listener) == {"handler_error": 1}
        with connect(listener) as client:
            assert await answer(client) == b"hello"


@pytest.fixture
def broken_log() -> Iterator[None]:
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError("the disk is full")

    handler = Broken()
    logger = logging.getLogger("esockd_core")
    logger.addHandler(handler)
    yield
    logger.removeHandler(handler)


async def fail(connection: StreamConnection) -> None:
    raise ValueError("of the handler")


class Fail(CallbackHandler):
    def connection_made(self, connection: StreamConnection) -> None:
        raise ValueError("of the handler")


@pytest.mark.usefixtures("broken_log")
@pytest.mark.parametrize("handler", [fail, Fail()], ids=["coroutine", "callback"])
async def test_a_log_that_cannot_be_written_harms_no_connection(handler: Handler) -> None:
    async with serving(handler) as listener:
        for number in range(1, 21):  # some of which are left out, which the log is told later
            with connect(listener) as client, suppress(OSError):
                await rest(client)
            assert await reasons(listener, number) == {"handler_error": number}
        await anyio.sleep(1.3)
        assert listener.state == "running"
        assert listener.stats().current_connections == 0


@pytest.mark.usefixtures("broken_log")
async def test_a_log_that_cannot_be_written_keeps_no_listener_from_closing(anyio_backend_name: str) -> None:
    release = anyio.Event()

    async def never_ending(connection: StreamConnection) -> None:
        with anyio.CancelScope(shield=True):
            while not release.is_set():
                with suppress(anyio.get_cancelled_exc_class()):
                    await release.wait()

    def note(event: Any) -> None:
        if event.kind == "connection_stopped" and anyio_backend_name == "trio":
            release.set()  # a nursery waits for its tasks, whatever they do

    with anyio.fail_after(30):
        async with open_listener(
            "stuck", "127.0.0.1:0", never_ending, shutdown_timeout=0, linger_timeout=0, on_event=note
        ) as listener:
            with connect(listener):
                await anyio.sleep(0.1)
                await listener.close()
        release.set()
    assert listener.stats().shutdown_counts == {"stuck": 1}
