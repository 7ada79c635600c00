"""Workers that are killed, stop, crash or hang: they are replaced, and the clients in their queues are served."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import anyio
import anyio.lowlevel
import pytest
from tests.core.workers.conftest import ECHO, ask, ask_all, eventually, is_alive, wait_until_gone

from esockd_core import EsockdError, InvalidOption
from esockd_core._remote.remote_listener import RemoteListener
from esockd_core.workers import WorkerListener, Workers

if TYPE_CHECKING:
    from tests.core.workers.conftest import Serve, Served

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]


async def until_replaced(served: Served, pids: set[int]) -> None:
    """Return when all workers run and none of them is one of these."""
    await eventually(lambda: len(served.pids()) == served.workers.count and not served.pids() & pids)


async def test_clients_in_the_queue_of_a_killed_worker_are_served_by_the_next_one(serve: Serve) -> None:
    async with serve() as served:
        pids = served.pids()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        clients = [await served.connect() for _ in range(60)]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

        assert await ask_all(clients) == [b"hello"] * 60
        await until_replaced(served, pids)


async def test_a_worker_that_was_stopped_is_replaced_and_its_queue_served(serve: Serve) -> None:
    async with serve(stuck_timeout=0.5) as served:
        victim = min(served.pids())
        os.kill(victim, signal.SIGSTOP)
        clients = [await served.connect() for _ in range(40)]

        assert await ask_all(clients) == [b"hello"] * 40
        await until_replaced(served, {victim})
        wait_until_gone({victim})


async def test_a_worker_for_which_no_processor_was_free_is_neither_slow_nor_killed(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim, looks, waited, is_starved = 0, 0, 0.0, True

    def waited_s(pid: int) -> float:
        nonlocal looks, waited
        looks += pid == victim
        if is_starved:
            waited = anyio.current_time()
        return waited

    monkeypatch.setattr("esockd_core.workers._silence.waited_s", waited_s)
    monkeypatch.setattr("esockd_core.workers._process.SLOW_S", 0.2)
    async with serve(stuck_timeout=0.5) as served:
        victim = min(served.pids())
        os.kill(victim, signal.SIGSTOP)
        await eventually(lambda: looks >= 8)
        assert {each.state for each in served.workers.workers()} == {"running"}
        assert victim in served.pids()

        is_starved = False
        await until_replaced(served, {victim})


async def test_a_change_waits_for_a_worker_for_which_no_processor_is_free(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim, looks = 0, 0

    def waited_s(pid: int) -> float:
        nonlocal looks
        looks += pid == victim
        return anyio.current_time() if pid == victim else 0.0

    monkeypatch.setattr("esockd_core.workers._silence.waited_s", waited_s)
    monkeypatch.setattr("esockd_core.workers._asking.CHANGE_S", 0.2)
    async with serve() as served:
        pids = served.pids()
        victim = min(pids)
        os.kill(victim, signal.SIGSTOP)
        async with anyio.create_task_group() as changing:
            changing.start_soon(lambda: served.listener.set_options(max_connections=7))
            looks = 0
            await eventually(lambda: looks >= 8)
            os.kill(victim, signal.SIGCONT)
        assert (await served.listener.get_options())["max_connections"] == 7
        assert served.pids() == pids
        assert all(each.replaced == 0 for each in served.workers.workers())


async def test_a_worker_whose_handler_blocks_it_is_replaced_and_its_queue_served(serve: Serve) -> None:
    async with serve(count=1, stuck_timeout=0.5) as served:
        (victim,) = served.pids()
        first = await served.connect()
        assert await ask(first, b"block") == b"blocked"
        clients = [await served.connect() for _ in range(10)]

        assert await ask_all(clients) == [b"hello"] * 10
        await until_replaced(served, {victim})


async def test_a_worker_that_stops_while_it_judges_a_client_is_killed_and_no_other_one(
    serve: Serve, tmp_path: Path
) -> None:
    stopping = "tests.core.workers.programs:stop_with_the_lock"
    async with serve(setup=stopping, setup_arguments=(str(tmp_path),), stuck_timeout=2.0) as served:
        pids = served.pids()
        early = [await served.connect() for _ in range(20)]
        owners = await ask_all(early, b"pid")
        (tmp_path / "stop").touch()
        clients = [await served.connect() for _ in range(40)]

        answers = await ask_all(clients)

        assert set(answers) == {b"hello", b""}, "those that the stopped worker had accepted are lost"
        await eventually(lambda: len(served.pids()) == 2 and len(served.pids() & pids) == 1)
        (survivor,) = served.pids() & pids
        assert await ask_all(early) == [b"hello" if int(pid) == survivor else b"" for pid in owners]


async def test_the_end_does_not_wait_for_a_worker_that_is_just_being_started(serve: Serve, tmp_path: Path) -> None:
    made = "tests.core.workers.programs:slow_if_told"
    async with serve(count=1, handler=made, handler_arguments=(str(tmp_path),), start_timeout=600.0) as served:
        (pid,) = served.pids()
        (tmp_path / "slow").touch()
        os.kill(pid, signal.SIGKILL)
        await eventually((tmp_path / "starting").exists)


async def test_a_crash_in_a_handler_ends_the_connections_of_one_worker_only(serve: Serve) -> None:
    async with serve() as served:
        clients = [await served.connect() for _ in range(30)]
        pids = await ask_all(clients, b"pid")

        await ask(clients[0], b"crash")

        answers = await ask_all(clients[1:])
        assert answers == [b"" if pid == pids[0] else b"hello" for pid in pids[1:]]
        assert await ask(await served.connect()) == b"hello"
        await until_replaced(served, {int(pids[0])})


async def test_a_worker_that_keeps_crashing_is_started_with_growing_pauses(serve: Serve) -> None:
    async with serve(count=1) as served:
        began = anyio.current_time()
        for _ in range(4):
            client = await served.connect()
            assert await ask(client) == b"hello"
            await ask(client, b"crash")
        assert await ask(await served.connect()) == b"hello"
        assert anyio.current_time() - began >= 0.1 + 0.2 + 0.4 + 0.8


async def test_new_clients_are_steered_away_from_a_worker_that_does_not_answer(serve: Serve) -> None:
    async with serve(stuck_timeout=None) as served:
        victim = min(served.pids())
        os.kill(victim, signal.SIGSTOP)
        await eventually(lambda: "slow" in {each.state for each in served.workers.workers()})

        answers = await ask_all([await served.connect() for _ in range(30)], b"pid")

        assert {int(answer) for answer in answers} == served.pids() - {victim}
        os.kill(victim, signal.SIGCONT)
        await eventually(lambda: "slow" not in {each.state for each in served.workers.workers()})
        answers = await ask_all([await served.connect() for _ in range(60)], b"pid")
        assert {int(answer) for answer in answers} == served.pids()


async def test_a_worker_that_cannot_import_its_handler_says_why_once(
    loop: Literal["asyncio", "uvloop", "trio"], caplog: pytest.LogCaptureFixture
) -> None:
    listener = WorkerListener(name="echo", address="127.0.0.1:0", handler="no_such_module:handle")
    with caplog.at_level(logging.INFO), pytest.raises(InvalidOption, match="No module named 'no_such_module'"):
        async with Workers([listener], count=2, loop=loop):
            pytest.fail("it started")
    assert not caplog.records


async def test_a_worker_that_does_not_accept_in_time_is_ended_and_named(
    loop: Literal["asyncio", "uvloop", "trio"], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3]))
    listener = WorkerListener(name="echo", address="127.0.0.1:0", handler="time:sleep", handler_arguments=(60,))
    with pytest.raises(EsockdError, match=r"worker 0 \(pid \d+\) has not begun to accept for 0.2 seconds"):
        async with Workers([listener], count=1, loop=loop, start_timeout=0.2):
            pytest.fail("it started")


async def test_code_that_breaks_later_is_told_once_and_tried_again(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = "tests.core.workers.programs:named_echo"
    async with serve(count=1, handler=made, handler_arguments=(str(tmp_path),)) as served:
        (pid,) = served.pids()
        broken = tmp_path / "broken"
        broken.touch()
        with pytest.raises(EsockdError, match="the code is broken"):
            await served.workers.restart()
        assert served.pids() == {pid}
        assert await ask(await served.connect()) == b"hello"

        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: "the code is broken" in caplog.text)
        broken.unlink()

        assert await ask(await served.connect()) == b"hello"
        assert caplog.text.count("the code is broken") == 1


async def test_restart_replaces_every_worker_and_loses_no_client(serve: Serve) -> None:
    async with serve(options={"shutdown_timeout": 5.0}) as served:
        before = served.pids()
        failed: list[bytes] = []
        count = 0

        async def come_and_go(scope: anyio.CancelScope) -> None:
            nonlocal count
            while not scope.cancel_called:
                client = await served.connect()
                if (answer := await ask(client)) != b"hello":
                    failed.append(answer)
                client.close()
                count += 1
                await anyio.lowlevel.checkpoint()

        stop = anyio.CancelScope()
        async with anyio.create_task_group() as task_group:
            for _ in range(4):
                task_group.start_soon(come_and_go, stop)
            for _ in range(3):
                await served.workers.restart()
            stop.cancel()

        assert not failed
        assert count
        assert not served.pids() & before
        stats = await served.until(lambda stats: not stats.current_connections)
        assert (stats.accepted, stats.refused) == (count, 0)


async def test_a_worker_is_said_to_retire_once_it_takes_no_clients_any_more(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    suspend = RemoteListener.suspend
    seen: list[list[str]] = []

    async def look_first(control: RemoteListener) -> None:
        seen.append([each.state for each in served.workers.workers()])
        await suspend(control)

    monkeypatch.setattr(RemoteListener, "suspend", look_first)
    async with serve(count=1) as served:
        await served.workers.restart()
        assert seen == [["running", "running"]]


async def test_a_retiring_worker_finishes_its_connections_and_ends(serve: Serve) -> None:
    async with serve(options={"shutdown_timeout": None}) as served:
        before = served.pids()
        client = await served.connect()
        assert await ask(client) == b"hello"

        await served.workers.restart()

        await served.listener.get_stats()
        retiring = [each for each in served.workers.workers() if each.state == "retiring" and each.current_connections]
        assert len(retiring) == 1
        assert {each.pid for each in retiring} < before
        client.close()
        await anyio.to_thread.run_sync(wait_until_gone, before)
        stats = await served.listener.get_stats()
        assert (stats.accepted, stats.current_connections) == (1, 0)


async def test_a_signal_for_all_processes_of_a_unit_leaves_the_end_to_the_parent(serve: Serve) -> None:
    async with serve() as served:
        pids = served.pids()
        clients = [await served.connect() for _ in range(10)]
        assert await ask_all(clients) == [b"hello"] * 10
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
            os.kill(pid, signal.SIGINT)
            os.kill(pid, signal.SIGHUP)
        assert await ask_all(clients) == [b"hello"] * 10
        assert served.pids() == pids


async def test_workers_die_with_their_parent(
    loop: Literal["asyncio", "uvloop", "trio"], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "parent.py"
    program.write_text(f"""
import anyio
from esockd_core.workers import WorkerListener, Workers

async def main():
    listener = WorkerListener(name="echo", address="127.0.0.1:0", handler={ECHO!r})
    async with Workers([listener], count=2, loop={loop!r}) as workers:
        print(*(each.pid for each in workers.workers()), flush=True)
        await anyio.sleep_forever()

anyio.run(main)
""")
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    with subprocess.Popen([sys.executable, program], stdout=subprocess.PIPE, env=env) as parent:  # noqa: ASYNC220
        assert parent.stdout is not None
        pids = {int(word) for word in parent.stdout.readline().split()}
        assert len(pids) == 2
        os.kill(min(pids), signal.SIGSTOP)
        parent.kill()
        wait_until_gone(pids)


async def test_nothing_is_left_when_the_block_is_cancelled_or_raises(serve: Serve) -> None:
    pids: set[int] = set()
    with pytest.raises(ValueError, match="of the block"):  # noqa: PT012 (leaving the block is what is tested)
        async with serve() as served:
            pids |= served.pids()
            raise ValueError("of the block")
    with anyio.CancelScope() as scope:
        async with serve() as served:
            pids |= served.pids()
            scope.cancel()
            await anyio.sleep_forever()
    assert len(pids) == 4
    assert not any(map(is_alive, pids))


async def test_each_worker_calls_the_setup_first_and_may_have_a_processor_of_its_own(
    serve: Serve, tmp_path: Path
) -> None:
    setup = "tests.core.workers.programs:note_setup"
    async with serve(setup=setup, setup_arguments=(str(tmp_path),), pin=True) as served:
        names = os.listdir(tmp_path)  # noqa: PTH208
        assert {int(name) for name in names} == served.pids()
        pinned = [os.sched_getaffinity(pid) for pid in served.pids()]
        assert all(len(processors) == 1 for processors in pinned)
        assert len(set.union(*pinned)) == min(2, len(os.sched_getaffinity(0)))
