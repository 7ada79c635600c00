"""One side has finished sending: the other still may, and nothing that waited is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import pytest
from tests.core.conftest import MORE_THAN_KERNELS_HOLD, Serve, receive_all

if TYPE_CHECKING:
    from esockd_core import StreamConnection

pytestmark = pytest.mark.anyio


async def test_a_client_that_finished_sending_still_reads_the_reply(serve: Serve) -> None:
    async def handle(connection: StreamConnection) -> None:
        request = b"".join([data async for data in connection])
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
            await connection.send(request)

    async with serve(handle) as (_, client):
        await client.send(b"request ")
        await client.send_eof()
        assert await receive_all(client) == b"request request request "


async def test_a_handler_that_finished_sending_still_receives(serve: Serve) -> None:
    received = b""

    async def handle(connection: StreamConnection) -> None:
        nonlocal received
        await connection.send_eof()
        received = b"".join([data async for data in connection])

    async with serve(handle) as (_, client):
        assert await receive_all(client) == b""
        await client.send(b"after the end")
    assert received == b"after the end"


async def test_what_waited_is_still_sent_before_the_end_of_sending(serve: Serve) -> None:
    async def handle(connection: StreamConnection) -> None:
        connection.send_nowait(bytes(MORE_THAN_KERNELS_HOLD))
        await connection.send_eof()
        assert b"".join([data async for data in connection]) == b"thanks"

    async with serve(handle) as (listener, client):
        assert len(await receive_all(client)) == MORE_THAN_KERNELS_HOLD
        await client.send(b"thanks")
    assert listener.stats().shutdown_counts == {"normal": 1}
