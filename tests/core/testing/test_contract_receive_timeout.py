"""A connection in memory is to its handler what a listener's connection is: peers that fall silent."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import anyio
import pytest
from tests.core.conftest import until
from tests.core.testing.conftest import Connect, Notes

from esockd_core import CallbackHandler, InvalidOption

if TYPE_CHECKING:
    from esockd_core import StreamConnection

pytestmark = pytest.mark.anyio


async def tell_for_ever(connection: StreamConnection) -> None:
    """What is sent does not count."""
    while True:
        await connection.send(b".")
        await anyio.sleep(0.01)


class Silent(CallbackHandler):
    """Takes what comes."""


@pytest.mark.parametrize("handler", [tell_for_ever, Silent()], ids=["coroutine", "callback"])
async def test_a_peer_that_sends_nothing_is_reset(connect: Connect, handler: CallbackHandler) -> None:
    async with connect(handler, receive_timeout=0.2) as link:
        with pytest.raises(anyio.BrokenResourceError):
            await link.receive_all()
    assert link.reason == "receive_timeout"


async def test_a_peer_that_sends_now_and_then_stays(connect: Connect) -> None:
    received = bytearray()

    async def handle(connection: StreamConnection) -> None:
        async for data in connection:
            received.extend(data)

    async with connect(handle, receive_timeout=0.6) as link:
        for _ in range(20):
            await link.peer.send(b"!")
            await anyio.sleep(0.05)
        await link.peer.send_eof()
        await link.receive_all()
    assert len(received) == 20
    assert link.reason == "normal"


async def test_a_handler_sets_its_own_without_an_option(connect: Connect) -> None:
    notes = Notes()

    async def handle(connection: StreamConnection) -> None:
        notes.append(str(connection.receive_timeout))
        await connection.receive(1)
        connection.receive_timeout = 0.2
        notes.append(str(connection.receive_timeout))
        await notes.error_of(connection.receive())

    async with connect(handle) as link:
        await link.peer.send(b"k")
        with suppress(anyio.BrokenResourceError):
            await link.receive_all()
    assert notes.has("None", "0.2", "BrokenResourceError")
    assert link.reason == "receive_timeout"


async def test_a_handler_lifts_the_one_of_the_listener(connect: Connect) -> None:
    async def handle(connection: StreamConnection) -> None:
        connection.receive_timeout = None
        await connection.send(b"+")
        await anyio.sleep(0.6)
        await connection.send(await connection.receive())

    async with connect(handle, receive_timeout=0.1) as link:
        assert await link.receive_exactly(1) == b"+"
        await anyio.sleep(0.5)
        await link.peer.send(b"still here")
        assert await link.receive_all() == b"still here"
    assert link.reason == "normal"


async def test_a_peer_that_finished_sending_is_not_waited_for(connect: Connect) -> None:
    async def handle(connection: StreamConnection) -> None:
        async for _ in connection:
            pass
        await anyio.sleep(0.5)
        await connection.send(b"late answer")

    async with connect(handle, receive_timeout=0.1) as link:
        await link.peer.send_eof()
        assert await link.receive_all() == b"late answer"
    assert link.reason == "normal"


@pytest.mark.parametrize("timeout", [0, -1, "90", float("nan")])
async def test_a_time_that_makes_no_sense_is_refused(connect: Connect, timeout: float) -> None:
    notes = Notes()

    async def handle(connection: StreamConnection) -> None:
        try:
            connection.receive_timeout = timeout
        except InvalidOption as error:
            notes.append(str(error.option))

    async with connect(handle) as link:
        await until(lambda: notes)
        await link.receive_all()
    assert notes.has("receive_timeout")


async def test_a_peer_that_falls_silent_within_a_message_is_reset(connect: Connect) -> None:
    async def handle(connection: StreamConnection) -> None:
        async for _ in connection.lines():
            pass

    async with connect(handle, receive_timeout=0.2) as link:
        await link.peer.send(b"half a line")
        with pytest.raises(anyio.BrokenResourceError), anyio.fail_after(30):
            await link.receive_all()
    assert link.reason == "receive_timeout"
