"""Handlers that do not end when they are told to: a closing listener insists, within bounds."""

from __future__ import annotations

import anyio
import pytest
from anyio.lowlevel import checkpoint
from tests.core.conftest import EventCount, connect, rest, until

from esockd_core import Connection, ConnectionEvent, StreamConnection, open_listener

pytestmark = pytest.mark.anyio


async def test_a_handler_that_goes_on_is_cancelled_after_the_timeout() -> None:
    cancelled = anyio.Event()

    async def deaf(connection: StreamConnection) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()

    async with open_listener("deaf", "127.0.0.1:0", deaf) as listener:
        with connect(listener) as client:
            await until(lambda: listener.stats().accepted == 1)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(listener.drain, 0.2)
                await until(lambda: listener.connections[0].draining)
                assert not cancelled.is_set()
                with pytest.raises(ConnectionResetError):  # an orderly end would say that this was all
                    await rest(client)
                client.close()
    assert cancelled.is_set()
    assert listener.stats().shutdown_counts == {"shutdown": 1}


async def test_swallowing_cancellation_is_no_way_to_stay(anyio_backend_name: str) -> None:
    async def stubborn(connection: StreamConnection) -> None:
        for _ in range(3):
            try:
                await anyio.sleep_forever()
            except anyio.get_cancelled_exc_class():
                continue

    with EventCount() as counts:
        async with open_listener(
            "stubborn", "127.0.0.1:0", stubborn, shutdown_timeout=0, linger_timeout=0, on_event=counts.note
        ) as listener:
            with connect(listener):
                await until(lambda: listener.stats().accepted == 1)
                with anyio.fail_after(30):
                    await listener.close()
    assert listener.stats().shutdown_counts == {"shutdown": 1}


async def test_a_stuck_handler_is_logged_with_its_stack_and_counted_and_holds_nobody(
    anyio_backend_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    release = anyio.Event()

    async def never_ending(connection: StreamConnection) -> None:
        with anyio.CancelScope(shield=True):
            while not release.is_set():
                try:
                    await release.wait()
                except anyio.get_cancelled_exc_class():  # asyncio's own cancellation minds no shield
                    continue

    if anyio_backend_name == "trio":  # a nursery waits for its tasks, whatever they do: let it go once it is counted

        def note(event: ConnectionEvent) -> None:
            if event.kind == "connection_stopped":
                release.set()
    else:

        def note(event: ConnectionEvent) -> None:
            pass

    async with open_listener(
        "stuck", "127.0.0.1:0", never_ending, shutdown_timeout=0, linger_timeout=0, on_event=note
    ) as listener:
        with connect(listener):
            await until(lambda: listener.stats().accepted == 1)
            with anyio.fail_after(30):
                await listener.close()
    assert listener.stats().shutdown_counts == {"stuck": 1}
    assert "never_ending" in caplog.text
    release.set()
    for _ in range(3):
        await checkpoint()
    assert listener.stats().shutdown_counts == {"stuck": 1}


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
