"""Handlers are resumed also in a program whose tasks begin at once, as CPython has them since 3.12.

AnyIO knows CPython's own factory of such tasks and no other. uvloop calls that of 3.13.0 with an argument that it does
not take, so this is asyncio's own loop.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import pytest
from tests.core.loops.resumed import ask, is_resumed, same_task

if TYPE_CHECKING:
    from tests.core.conftest import Serve

    from esockd_core import StreamConnection

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": False})], ids=["asyncio"]),
]

if sys.version_info >= (3, 12):

    async def test_a_handler_is_resumed_with_eager_tasks(serve: Serve) -> None:
        async def handle(connection: StreamConnection) -> None:
            check = same_task()
            await connection.send(b"ready")
            async for data in connection:
                assert is_resumed()
                check()
                await connection.send(data)

        loop = asyncio.get_running_loop()
        factory = loop.get_task_factory()
        loop.set_task_factory(asyncio.eager_task_factory)
        try:
            async with serve(handle) as (_, client):
                await client.receive()
                for question in (b"one", b"two", b"three"):
                    assert await ask(client, question) == question
        finally:
            loop.set_task_factory(factory)
