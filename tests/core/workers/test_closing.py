"""Listeners that are closed while the workers run: who is served, what is counted, and what is given back."""

from __future__ import annotations

import gc
import os
import signal
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from tests.core.workers.conftest import (
    ECHO,
    PROGRAMS,
    ask,
    ask_all,
    ask_anew,
    connect,
    eventually,
    open_files,
    other,
    port_of,
)
from tests.patience import PATIENCE_S
from tests.ports import is_refused

from esockd_core import EsockdError, ListenerClosed, Stats
from esockd_core.workers import WorkerListener, Workers
from esockd_core.workers._part import WorkerPart

if TYPE_CHECKING:
    from pathlib import Path

    from tests.core.workers.conftest import Serve

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]


async def test_a_closed_listener_refuses_at_once_and_serves_its_clients_to_their_end(serve: Serve) -> None:
    async with serve() as served:
        control = await served.workers.open(other(handler="echo", shutdown_timeout=60.0))
        port = await port_of(control)
        clients = [connect(port) for _ in range(20)]
        assert await ask_all(clients) == [b"hello"] * 20

        async with anyio.create_task_group() as closing:
            closing.start_soon(control.close)
            await control.wait_draining()
            assert is_refused(port)
            assert await ask_all(clients) == [b"hello"] * 20
            assert (await control.get_status()).state == "draining"
            assert await ask(await served.connect()) == b"hello"
            again = await served.workers.open(
                WorkerListener(name="new", address=f"127.0.0.1:{port}", handler=PROGRAMS + "other")
            )
            assert await ask_anew(port) == b"other"
            for client in clients:
                client.close()

        stats = await control.get_stats()
        assert (stats.accepted, stats.current_connections) == (20, 0)
        assert [(await each.get_status()).name for each in served.workers.listeners()] == ["echo", "new"]
        assert (await again.get_stats()).accepted == 1


async def test_clients_of_a_closing_listener_go_to_the_workers_that_accept_yet(serve: Serve) -> None:
    async with serve(stuck_timeout=None) as served:
        control = await served.workers.open(other(handler="echo", shutdown_timeout=60.0))
        port, stopped = await port_of(control), min(served.pids())
        sockets = served.workers._supervisor._listeners.find(other())._model.sockets
        assert sockets is not None
        os.kill(stopped, signal.SIGSTOP)
        async with anyio.create_task_group() as closing:
            closing.start_soon(control.close)
            await eventually(lambda: len(sockets.all_sockets()) == 1)
            clients = [connect(port) for _ in range(20)]
            status = await control.get_status()
            assert (status.state, status.port) == ("draining", port)
            os.kill(stopped, signal.SIGCONT)
            assert await ask_all(clients, b"pid") == [str(stopped).encode()] * 20
            await control.wait_draining()
            assert is_refused(port)
            for client in clients:
                client.close()


async def test_counters_go_on_when_a_listener_of_the_same_name_and_address_is_opened_again(serve: Serve) -> None:
    async with serve() as served:
        for accepted in (1, 2, 3):
            control = await served.workers.open(other())
            assert await ask_anew(await port_of(control)) == b"other"
            await control.close()
            stats = await control.get_stats()
            assert (stats.accepted, sum(stats.shutdown_counts.values())) == (accepted, accepted)


async def test_a_closed_listener_leaves_no_descriptor_open_in_any_process(serve: Serve, tmp_path: Path) -> None:
    async with serve() as served:
        pids, own = served.pids(), {os.getpid()}
        gc.collect()  # or what the tests before left might be closed meanwhile
        before, own_before = open_files(pids), open_files(own)
        for number in range(5):
            control = await served.workers.open(other("127.0.0.1:0", "named_echo", str(tmp_path), max_conn_rate=9))
            await control.set_options(max_connections_per_source=5, max_conn_rate_per_source=number + 2)
            assert await ask_anew(await port_of(control)) == b"hello"
            await control.close()
            (tmp_path / "broken").touch()
            with pytest.raises(EsockdError, match="the code is broken"):
                await served.workers.open(other("127.0.0.1:0", "named_echo", str(tmp_path)))
            (tmp_path / "broken").unlink()
        await eventually(lambda: open_files(pids) == before and open_files(own) == own_before)


async def test_the_last_durations_of_a_closed_listener_are_counted_although_another_one_is_opened_meanwhile(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("esockd_core.workers._process.BEAT_S", 1e6)  # only the close asks for them
    monkeypatch.setattr("esockd_core.workers._looking.ASK_S", PATIENCE_S)
    get_stats, is_asked, may_answer = WorkerPart.get_stats, anyio.Event(), anyio.Event()

    async def get_stats_late(part: WorkerPart) -> Stats:
        is_asked.set()
        await may_answer.wait()
        return await get_stats(part)

    async with serve() as served:
        control = await served.workers.open(other())
        port = await port_of(control)
        assert [await ask_anew(port) for _ in range(10)] == [b"other"] * 10
        monkeypatch.setattr(WorkerPart, "get_stats", get_stats_late)
        async with anyio.create_task_group() as closing:
            closing.start_soon(control.close)
            await is_asked.wait()
            third = WorkerListener(name="third", address="127.0.0.1:0", handler=ECHO)
            await served.workers.open(third)
            may_answer.set()
        stats = await control.get_stats()
        assert (stats.accepted, stats.lifetimes.count) == (10, 10)


async def test_a_close_goes_on_when_nobody_waits_for_it(serve: Serve) -> None:
    async with serve() as served:
        control = await served.workers.open(other(shutdown_timeout=60.0))
        with connect(await port_of(control)) as client:
            assert await ask(client) == b"other"
            with anyio.move_on_after(0.5):
                await control.close()
        await control.wait_closed()
        assert len(served.workers.listeners()) == 1


async def test_the_workers_end_with_the_last_listener_unless_they_are_to_stay(serve: Serve) -> None:
    async with serve() as served:
        pids = served.pids()
        with served.workers.staying():
            await served.listener.close()
            control = await served.workers.open(other())
        assert await ask_anew(await port_of(control)) == b"other"
        assert served.pids() == pids
        with served.workers.staying():
            await control.close()
        await served.workers.wait_closed()
        await eventually(lambda: not served.workers.workers())
        with pytest.raises(ListenerClosed):
            await served.workers.open(other())


async def test_more_listeners_than_a_client_may_wait_for_close_together(loop: Any) -> None:
    names = [str(number) for number in range(70)]
    listeners = [
        WorkerListener(name=name, address="127.0.0.1:0", handler="esockd_core.handlers:echo") for name in names
    ]
    with anyio.fail_after(120):
        async with Workers(listeners, count=1, loop=loop) as workers:
            assert len(workers.listeners()) == 70
