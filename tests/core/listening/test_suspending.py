"""Suspending and resuming: connections go on, and nobody who waits is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest
from anyio.lowlevel import checkpoint
from tests.core.conftest import answer, connect, connect_stream, echo

from esockd_core import open_listener
from esockd_core._errors import ListenerClosed

if TYPE_CHECKING:
    from esockd_core import Handler


pytestmark = pytest.mark.anyio


async def test_a_cancelled_suspend_leaves_a_listener_that_can_resume() -> None:
    with anyio.fail_after(30):
        async with open_listener("test", "127.0.0.1:0", echo) as listener:
            with anyio.CancelScope() as scope:
                scope.cancel()
                await listener.suspend()
            await listener.suspend()
            await listener.resume()
            async with await connect_stream(listener) as client:
                await client.send(b"x")
                assert await client.receive() == b"x"


async def test_a_suspended_listener_keeps_its_connections_and_serves_who_waited_after_it_resumes(
    handler: Handler,
) -> None:
    async with open_listener("echo", "127.0.0.1:0", handler) as listener:
        with connect(listener) as early:
            assert await answer(early) == b"hello"
            await listener.suspend()
            assert str(listener.state) == "suspended"
            with connect(listener) as late:
                assert await answer(early) == b"hello"
                for _ in range(20):
                    await checkpoint()
                assert listener.stats().accepted == 1
                await listener.resume()
                assert str(listener.state) == "running"
                assert await answer(late) == b"hello"
            assert await answer(early) == b"hello"


@pytest.mark.parametrize("acceptors", [1, 3])
async def test_suspending_and_resuming_over_and_over_loses_no_client(handler: Handler, acceptors: int) -> None:
    served = 0

    async def visit() -> None:
        nonlocal served
        for _ in range(20):
            assert listener.port is not None
            async with await anyio.connect_tcp("127.0.0.1", listener.port) as client:
                await client.send(b"x")
                with anyio.fail_after(30):
                    assert await client.receive() == b"x"
                served += 1

    async with open_listener("echo", "127.0.0.1:0", handler, acceptors=acceptors) as listener:
        async with anyio.create_task_group() as toggling:

            async def toggle() -> None:
                while True:
                    await listener.suspend()
                    await checkpoint()
                    await listener.resume()
                    await anyio.sleep(0.001)

            toggling.start_soon(toggle)
            async with anyio.create_task_group() as visitors:
                for _ in range(10):
                    visitors.start_soon(visit)
            toggling.cancel_scope.cancel()
        stats = listener.stats()
        assert served == 200
        assert stats.accepted == 200


async def test_who_suspends_at_once_after_resuming_or_opening_is_obeyed() -> None:
    async with open_listener("echo", "127.0.0.1:0", echo) as listener:
        await listener.suspend()
        with connect(listener) as client:
            for _ in range(5):
                await listener.resume()
                await listener.suspend()
            for _ in range(20):
                await checkpoint()
            accepted = listener.stats().accepted
            if accepted == 0:  # a resumed listener may have taken it before it was suspended again
                await listener.resume()
            assert await answer(client) == b"hello"
            await listener.suspend()
        before = listener.stats().accepted
        with connect(listener):
            for _ in range(20):
                await checkpoint()
            assert listener.stats().accepted == before


async def test_a_closed_listener_neither_resumes_nor_suspends() -> None:
    async with open_listener("echo", "127.0.0.1:0", echo) as listener:
        pass
    with pytest.raises(ListenerClosed):
        await listener.resume()
    with pytest.raises(ListenerClosed):
        await listener.suspend()
