"""Looking at a listener through `ListenerControl`: status, stats, acceptors, refusals, sources."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import anyio
import pytest
from tests.core.conftest import HEADER, answer, connect, echo, until
from tests.core.control.conftest import refused, served

from esockd_core import Refused, open_listener

if TYPE_CHECKING:
    from pathlib import Path

    from tests.core.control.conftest import ControlOf

    from esockd_core import Handler


pytestmark = pytest.mark.anyio


async def test_a_status_tells_name_state_and_addresses(control_of: ControlOf) -> None:
    before = time.time()
    async with open_listener("echo", "127.0.0.1:0", echo) as listener, control_of(listener) as control:
        status = await control.get_status()
        assert (status.name, status.address, status.state) == ("echo", "127.0.0.1:0", "running")
        assert status.addresses == (f"127.0.0.1:{listener.port}",)
        assert status.port == listener.port
        assert status.opened_at is not None
        assert before <= status.opened_at <= time.time()
        await control.suspend()
        assert (await control.get_status()).state == "suspended"
    status = await listener.get_status()
    assert (status.state, status.addresses, status.port) == ("closed", (), None)


async def test_stats_tell_counts_bytes_and_reasons(handler: Handler, control_of: ControlOf) -> None:
    """esockd's t_get_shutdown_count."""
    with anyio.fail_after(20):
        async with open_listener("echo", "127.0.0.1:0", handler) as listener, control_of(listener) as control:
            for _ in range(2):
                (await served(listener)).close()
            await until(lambda: not listener.connections)
            stats = await control.get_stats()
            assert (stats.accepted, stats.refused, stats.current_connections) == (2, 0, 0)
            assert (stats.bytes_in, stats.bytes_out) == (10, 10)
            assert stats.shutdown_counts == {"normal": 2}
            assert stats.lifetimes.count == 2
            assert stats.handshake_failures == {}


async def test_stats_tell_who_waits_in_the_kernels_queue(tmp_path: Path, control_of: ControlOf) -> None:
    with anyio.fail_after(20):
        async with open_listener("echo", 0, echo, tcp={"backlog": 7}) as listener, control_of(listener) as control:
            await control.suspend()
            with connect(listener), connect(listener), connect(listener, "::1"):
                stats = await control.get_stats()
                assert (stats.accept_queue_length, stats.accept_queue_limit) == (3, 14)
        assert (await listener.get_stats()).accept_queue_length is None
        async with (
            open_listener("echo", f"unix:{tmp_path / 's'}", echo, tcp={"backlog": 7}) as listener,
            control_of(listener) as control,
        ):
            stats = await control.get_stats()
            assert (stats.accept_queue_length, stats.accept_queue_limit) == (0, 7)


async def test_stats_tell_how_late_the_loop_and_the_handlers_were(control_of: ControlOf) -> None:
    with anyio.fail_after(20):
        async with open_listener("echo", "127.0.0.1:0", echo) as listener, control_of(listener) as control:
            clients = [await served(listener) for _ in range(5)]
            await until(lambda: listener.stats().accept_delays.count == 5 and listener.stats().loop_lags.count > 0)
            stats = await control.get_stats()
            assert stats.accept_delays.total >= 0
            assert stats.accept_delays.quantile(0.5) is not None
            for client in clients:
                client.close()


async def test_acceptors_are_listed(control_of: ControlOf) -> None:
    """esockd's t_get_acceptors."""
    async with open_listener("echo", "127.0.0.1:0", echo, acceptors=4) as listener, control_of(listener) as control:
        acceptors = await control.get_acceptors()
        assert [acceptor.id for acceptor in acceptors] == [0, 1, 2, 3]
        assert {acceptor.address for acceptor in acceptors} == set(listener.addresses)


async def test_refusals_are_listed_with_their_reason(handler: Handler, control_of: ControlOf) -> None:
    with anyio.fail_after(20):
        async with (
            open_listener("echo", "127.0.0.1:0", handler, access_rules=["deny 127.0.0.2"]) as listener,
            control_of(listener) as control,
        ):
            with connect(listener, "127.0.0.2") as denied:
                await refused(denied)
            [refusal] = await control.get_refusals()
            assert refusal.peer is not None
            assert refusal.peer[0] == "127.0.0.2"
            assert (refusal.stage, refusal.reason) == (Refused.FORBIDDEN, "access rule 0: deny 127.0.0.2")


async def test_top_sources_tell_who_comes_most_often_refused_or_not(control_of: ControlOf) -> None:
    with anyio.fail_after(20):
        async with (
            open_listener("echo", 0, echo, access_rules=["deny 127.0.0.2"]) as listener,
            control_of(listener) as control,
        ):
            first, second = await served(listener, "127.0.0.3"), await served(listener, "::1")
            for _ in range(3):
                with connect(listener, "127.0.0.2") as denied:
                    await refused(denied)
            (await served(listener, "127.0.0.3")).close()
            await until(lambda: len(listener.connections) == 2)
            top = await control.get_top_sources()
            assert [(each.source, each.attempts, each.open_connections) for each in top] == [
                ("127.0.0.2", 3, 0),
                ("127.0.0.3", 2, 1),
                ("::/64", 1, 1),
            ]
            assert len(await control.get_top_sources(1)) == 1
            first.close()
            second.close()


async def test_behind_a_proxy_the_sources_are_its_clients(control_of: ControlOf) -> None:
    with anyio.fail_after(20):
        async with (
            open_listener("echo", "127.0.0.1:0", echo, proxy_protocol=True) as listener,
            control_of(listener) as control,
        ):
            with connect(listener) as client:
                client.send(HEADER)
                assert await answer(client) == b"hello"
                [source] = await control.get_top_sources()
                assert (source.source, source.open_connections) == ("192.0.2.7", 1)
