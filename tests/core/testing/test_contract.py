"""A connection in memory is to its handler what a listener's connection is: each test runs on both, in both styles."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio.abc import SocketAttribute
from tests.core.conftest import Echo, echo
from tests.core.testing.conftest import Connect, Notes

from esockd_core.testing import exchange

if TYPE_CHECKING:
    from esockd_core import Handler, StreamConnection

pytestmark = pytest.mark.anyio


BOTH_STYLES = pytest.mark.parametrize("handler", [echo, Echo()], ids=["coroutine", "callback"])


@BOTH_STYLES
async def test_what_is_sent_comes_back_and_the_end_is_normal(connect: Connect, handler: Handler) -> None:
    async with connect(handler) as link:
        await link.peer.send(b"hello")
        assert await link.receive_exactly(5) == b"hello"
        assert await exchange(link.peer, b"bye") == b"bye"
    assert link.reason == "normal"


@BOTH_STYLES
async def test_a_client_that_just_leaves_is_a_normal_end(connect: Connect, handler: Handler) -> None:
    async with connect(handler) as link:
        await link.peer.send(b"x")
        await link.receive_exactly(1)
        await link.peer.aclose()
    assert link.reason == "normal"


@BOTH_STYLES
async def test_a_mebibyte_goes_each_way_at_once(connect: Connect, handler: Handler) -> None:
    payload = random.Random(1).randbytes(1 << 20)

    async def pour() -> None:
        for at in range(0, len(payload), 50_000):
            await link.peer.send(payload[at : at + 50_000])
        await link.peer.send_eof()

    async with connect(handler) as link, anyio.create_task_group() as tasks:
        tasks.start_soon(pour)
        assert await link.receive_all() == payload
    assert link.reason == "normal"


@BOTH_STYLES
async def test_counts_are_of_bytes_in_both_directions(connect: Connect, handler: Handler) -> None:
    async with connect(handler) as link:
        await link.peer.send(b"hello")
        await link.receive_exactly(5)
        (connection,) = link.connections()
        assert (connection.bytes_in, connection.bytes_out) == (5, 5)
        assert connection.state == "open"
        assert not connection.draining


@BOTH_STYLES
async def test_a_reset_is_counted_as_one(connect: Connect, handler: Handler) -> None:
    async with connect(handler) as link:
        await link.peer.send(b"x")
        await link.receive_exactly(1)
        await link.reset()
    assert link.reason == "reset"


@BOTH_STYLES
async def test_an_idle_connection_is_closed_after_the_idle_timeout(connect: Connect, handler: Handler) -> None:
    async with connect(handler, idle_timeout=0.1, linger_timeout=0.1) as link:
        with suppress(anyio.BrokenResourceError):
            assert await link.receive_all() == b""
    assert link.reason == "idle_timeout"


@BOTH_STYLES
async def test_an_abort_from_outside_names_its_reason(connect: Connect, handler: Handler) -> None:
    async with connect(handler) as link:
        await link.peer.send(b"x")
        await link.receive_exactly(1)
        link.connections()[0].abort("banned")
        with suppress(anyio.BrokenResourceError):
            assert await link.receive_all() == b""
    assert link.reason == "banned"


@BOTH_STYLES
async def test_a_close_from_outside_is_orderly_and_names_its_reason(connect: Connect, handler: Handler) -> None:
    async with connect(handler) as link:
        await link.peer.send(b"x")
        await link.receive_exactly(1)
        (connection,) = link.connections()
        connection.close_nowait("enough")
        connection.close_nowait("later")
        assert connection.state == "closing"
        assert await link.receive_all() == b""
    assert connection.state == "closed"
    assert link.reason == "enough"


@BOTH_STYLES
async def test_a_peer_that_does_not_finish_is_waited_for_as_long_as_the_linger_timeout(
    connect: Connect, handler: Handler
) -> None:
    async with connect(handler, linger_timeout=0.1) as link:
        await link.peer.send(b"x")
        await link.receive_exactly(1)
        (connection,) = link.connections()
        connection.close_nowait()
        while connection.state != "closed":  # noqa: ASYNC110
            await anyio.sleep(0.01)
    assert link.reason == "normal"


async def test_its_names_are_those_of_anyios_streams(connect: Connect) -> None:
    notes = Notes()

    async def handle(connection: StreamConnection) -> None:
        assert isinstance(connection.peername, tuple)
        assert isinstance(connection.sockname, tuple)
        assert connection.extra(SocketAttribute.remote_address) == connection.peername == connection.socket_peername
        assert connection.extra(SocketAttribute.local_address) == connection.sockname
        assert connection.extra(SocketAttribute.remote_port) == connection.peername[1]
        assert connection.extra(SocketAttribute.local_port) == connection.sockname[1]
        assert connection.proxy is None
        assert connection.tls is None
        assert connection.id > 0
        assert connection.opened_at > 0
        notes.append(connection.state)

    async with connect(handle) as link:
        await link.receive_all()
    assert notes.has("open")
