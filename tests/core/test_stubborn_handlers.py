"""Handlers that do not end when they are told to: a closing listener insists, within bounds."""

from __future__ import annotations

import anyio
import pytest

from esockd_core import Connection, open_listener

pytestmark = pytest.mark.anyio


async def test_a_handler_that_swallows_one_cancellation_is_cancelled_again() -> None:
    started = anyio.Event()

    async def swallow_once(_: Connection) -> None:
        started.set()
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            await anyio.sleep_forever()

    with anyio.fail_after(20):
        async with open_listener("stubborn", "127.0.0.1:0", swallow_once, shutdown_timeout=0.1) as listener:
            assert listener.port is not None
            async with await anyio.connect_tcp("127.0.0.1", listener.port):
                await started.wait()
                await listener.close()
    assert listener.stats().shutdown_counts == {"shutdown": 1}
