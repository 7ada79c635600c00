"""Listeners that are opened while the workers run: in every worker, or in none."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
from tests.core.conftest import ASYNCIO_ONLY
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
from tests.open_files import only_files_left
from tests.patience import PATIENCE_S
from tests.ports import is_refused, steady_port

from esockd_core import AddressInUse, AlreadyOpen, CannotBind, ControlError, EsockdError, InvalidOption
from esockd_core.workers import WorkerListener, Workers
from esockd_core.workers._part import WorkerPart
from esockd_core.workers._process import WorkerProcess

if TYPE_CHECKING:
    from tests.core.workers.conftest import Serve

    from esockd_core.workers._orders import ListenerOrder

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]


async def test_a_listener_that_is_opened_later_is_served_by_every_worker_and_the_others_go_on(serve: Serve) -> None:
    async with serve() as served:
        before = await served.connect()
        assert await ask(before) == b"hello"
        control = await served.workers.open(other(handler="echo", max_connections=30))
        clients = [connect(await port_of(control)) for _ in range(40)]

        answers = await ask_all(clients, b"pid")

        assert {int(answer) for answer in answers if answer} == served.pids()
        assert answers.count(b"") == 10
        assert await ask(before) == b"hello"
        stats = await control.get_stats()
        assert (stats.accepted, stats.closed_max_limit) == (30, 10)
        status = await control.get_status()
        assert (status.state, status.handler) == ("running", PROGRAMS + "echo")
        assert [(await each.get_status()).name for each in served.workers.listeners()] == ["echo", "other"]
        shown = served.workers.workers()
        assert all([each.status.name for each in worker.listeners] == ["echo", "other"] for worker in shown)
        for client in clients:
            client.close()


async def test_one_may_begin_suspended(serve: Serve) -> None:
    async with serve() as served:
        control = await served.workers.open(other(), suspended=True)
        with connect(await port_of(control)) as client:
            assert (await control.get_stats()).accepted == 0
            await control.resume()
            assert await ask(client) == b"other"


async def test_the_successor_of_a_killed_worker_serves_a_listener_that_was_opened_later(serve: Serve) -> None:
    async with serve(count=1) as served:
        control = await served.workers.open(other())
        port = await port_of(control)
        assert await ask_anew(port) == b"other"
        (victim,) = served.pids()
        os.kill(victim, signal.SIGSTOP)
        queued = [connect(port) for _ in range(5)]
        os.kill(victim, signal.SIGKILL)
        assert await ask_all(queued) == [b"other"] * 5
        await served.workers.restart()
        assert await ask_anew(port) == b"other"
        for client in queued:
            client.close()


@pytest.mark.parametrize("end", ["raises", "exits"])
async def test_a_handler_that_a_worker_cannot_import_leaves_everything_as_it_was(
    serve: Serve, tmp_path: Path, end: str
) -> None:
    async with serve() as served:
        client = await served.connect()
        assert await ask(client) == b"hello"
        port = steady_port()
        pids, files = served.pids(), open_files(served.pids())
        (tmp_path / "broken").write_text("" if end == "raises" else "exit")
        with pytest.raises(EsockdError) as caught:
            await served.workers.open(other(f"127.0.0.1:{port}", "named_echo", str(tmp_path)))
        why = "RuntimeError: the code is broken" if end == "raises" else "SystemExit: the code is broken"
        assert why in str(caught.value)
        assert is_refused(port)
        assert len(served.workers.listeners()) == 1
        assert await ask(client) == b"hello"
        assert served.pids() == pids
        assert open_files(pids) == files

        (tmp_path / "broken").unlink()
        control = await served.workers.open(other(f"127.0.0.1:{port}", "named_echo", str(tmp_path)))
        assert await ask_anew(await port_of(control)) == b"hello"


async def test_a_handler_whose_import_kills_its_worker_kills_no_other(serve: Serve, tmp_path: Path) -> None:
    async with serve() as served:
        pids = served.pids()
        (tmp_path / "broken").write_text("die")
        with pytest.raises(ControlError, match="ended meanwhile: nothing was changed"):
            await served.workers.open(other("127.0.0.1:0", "named_echo", str(tmp_path)))
        await eventually(lambda: len(served.pids()) == 2 and served.pids() != pids)
        assert len(pids & served.pids()) == 1
        pids = served.pids()
        with pytest.raises(ControlError, match="ended meanwhile: nothing was changed"):
            await served.listener.set_handler("tests.core.workers.deadly:handle")
        await eventually(lambda: len(served.pids()) == 2 and served.pids() != pids)
        assert len(pids & served.pids()) == 1
        assert await ask(await served.connect()) == b"hello"


async def test_an_opening_waits_for_the_successor_of_the_only_worker(serve: Serve) -> None:
    """As when one listener gives way to another, whose import ends the worker, and is opened again."""
    async with serve(count=1) as served:
        pids = served.pids()
        with served.workers.staying():
            await served.listener.close()
            deadly = WorkerListener(name="deadly", address="127.0.0.1:0", handler="tests.core.workers.deadly:handle")
            with pytest.raises(ControlError, match="ended meanwhile: nothing was changed"):
                await served.workers.open(deadly)
            control = await served.workers.open(other())
        assert await ask_anew(await port_of(control)) == b"other"
        assert not pids & served.pids()


async def test_an_opening_is_refused_as_long_as_no_worker_can_start(serve: Serve, tmp_path: Path) -> None:
    arguments = (str(tmp_path),)
    async with serve(count=1, handler=PROGRAMS + "named_echo", handler_arguments=arguments) as served:
        (tmp_path / "broken").touch()
        os.kill(served.pids().pop(), signal.SIGKILL)
        await eventually(lambda: not served.workers.workers())
        served.workers._supervisor.import_timeout_s = 0.1
        with pytest.raises(ControlError, match="no worker runs at the moment: nothing was changed") as caught:
            await served.workers.open(other())
        assert caught.value.code == "busy"
        (tmp_path / "broken").unlink()
        served.workers._supervisor.import_timeout_s = PATIENCE_S
        await served.workers.open(other())


async def test_what_no_worker_could_import_yet_is_refused(serve: Serve) -> None:
    """Otherwise no worker could start any more, if it cannot be imported."""
    async with serve() as served:
        for pid in served.pids():
            os.kill(pid, signal.SIGKILL)
        await eventually(lambda: not served.workers.workers())
        with pytest.raises(EsockdError):
            await served.workers.open(other(handler="missing"))
        with pytest.raises(EsockdError):
            await served.workers.change(
                WorkerListener(name="echo", address="127.0.0.1:0", handler=PROGRAMS + "missing")
            )
        with pytest.raises(EsockdError):
            await served.listener.set_handler(PROGRAMS + "missing")
        assert await ask(await served.connect()) == b"hello"


async def test_a_worker_that_does_not_answer_in_time_is_replaced_by_one_without_the_listener(
    serve: Serve, tmp_path: Path
) -> None:
    async with serve() as served:
        pids = served.pids()
        served.workers._supervisor.import_timeout_s = 1.0
        (tmp_path / "slow").touch()
        with pytest.raises(ControlError, match="does not answer: nothing was changed"):
            await served.workers.open(other("127.0.0.1:0", "slow_if_told", str(tmp_path)))
        (tmp_path / "slow").unlink()
        served.workers._supervisor.import_timeout_s = PATIENCE_S
        await eventually(lambda: len(served.pids()) == 2 and served.pids() != pids)
        control = await served.workers.open(other())
        assert await ask_anew(await port_of(control)) == b"other"


async def test_a_worker_that_imports_a_handler_for_longer_than_it_may_be_stuck_is_not_killed(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("esockd_core.workers._process.BEAT_S", 0.05)
    monkeypatch.setattr("esockd_core.workers._process.SLOW_S", 0.05)
    async with serve(stuck_timeout=0.5) as served:
        pids = served.pids()
        control = await served.workers.open(other("127.0.0.1:0", "slow_echo", 4.0))
        assert await ask_anew(await port_of(control)) == b"hello"
        await served.workers.change(other("127.0.0.1:0", "slow_echo", 4.1))
        assert served.pids() == pids


async def test_an_opening_that_is_cancelled_once_every_worker_has_the_listener_returns_its_control(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    resume, has_resumed, cancelled = WorkerPart.resume, anyio.Event(), anyio.Event()

    async def resume_late(part: WorkerPart) -> None:
        await resume(part)
        has_resumed.set()
        await cancelled.wait()
        await anyio.lowlevel.checkpoint()

    monkeypatch.setattr(WorkerPart, "resume", resume_late)
    async with serve() as served, anyio.create_task_group() as task_group:
        opening, control = anyio.CancelScope(), None

        async def cancel() -> None:
            await has_resumed.wait()
            opening.cancel()
            cancelled.set()

        task_group.start_soon(cancel)
        with opening:
            control = await served.workers.open(other())

        assert control is not None
        assert control in served.workers.listeners()
        assert await ask_anew(await port_of(control)) == b"other"


@ASYNCIO_ONLY
@pytest.mark.parametrize("method", ["resume", "get_status"])
async def test_the_listener_of_an_asyncio_task_that_is_cancelled_late_is_closed_and_the_others_go_on(
    serve: Serve, method: str
) -> None:
    """`Task.cancel` passes every shield of anyio, so that nobody gets the control."""
    finish, is_late = getattr(WorkerPart, method), anyio.Event()

    async def finish_late(part: WorkerPart) -> None:
        await finish(part)
        is_late.set()
        await anyio.sleep_forever()

    async with serve() as served:
        client, pids, port = await served.connect(), served.pids(), steady_port()
        assert await ask(client) == b"hello"
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(WorkerPart, method, finish_late)
            opening = asyncio.ensure_future(served.workers.open(other(f"127.0.0.1:{port}")))
            await is_late.wait()
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening
        await eventually(lambda: len(served.workers.listeners()) == 1)
        assert is_refused(port)
        assert await ask(client) == b"hello"
        await served.workers.open(other(f"127.0.0.1:{port}"))
        assert await ask_anew(port) == b"other"
        assert served.pids() == pids


async def test_a_refused_opening_leaves_no_port_open_in_a_worker_that_has_stopped(serve: Serve) -> None:
    async with serve(stuck_timeout=None) as served:
        port, stopped = steady_port(), min(served.pids())
        served.workers._supervisor.import_timeout_s = 1.0
        os.kill(stopped, signal.SIGSTOP)
        with pytest.raises(ControlError, match="does not answer: nothing was changed"):
            await served.workers.open(other(f"127.0.0.1:{port}"))
        assert is_refused(port)
        served.workers._supervisor.import_timeout_s = PATIENCE_S
        await eventually(lambda: len(served.pids()) == 2 and stopped not in served.pids())
        await served.workers.open(other(f"127.0.0.1:{port}"))
        assert await ask_anew(port) == b"other"
        os.kill(stopped, signal.SIGCONT)


async def test_a_worker_that_hangs_is_not_given_the_time_of_an_import(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, asked = WorkerPart.begin, list[int]()

    async def begin_noted(part: WorkerPart, order: ListenerOrder) -> None:
        asked.append(part.share)
        await begin(part, order)

    monkeypatch.setattr(WorkerPart, "begin", begin_noted)
    async with serve() as served:
        stopped = next(each for each in served.workers.workers() if each.number == 0)
        os.kill(stopped.pid, signal.SIGSTOP)
        with pytest.raises(ControlError, match="does not answer: nothing was changed") as caught:
            await served.workers.open(other())
        assert (caught.value.code, 0 in asked) == ("busy", False)
        await eventually(lambda: len(served.pids()) == 2 and stopped.pid not in served.pids())
        control = await served.workers.open(other())
        assert await ask_anew(await port_of(control)) == b"other"
        with suppress(ProcessLookupError):  # it was killed as stuck
            os.kill(stopped.pid, signal.SIGCONT)


async def test_a_worker_that_ended_before_it_could_import_is_not_why_an_opening_fails(serve: Serve) -> None:
    greet = WorkerProcess.greet

    async def greet_the_dead(process: WorkerProcess) -> None:
        if process.share == 0:
            os.kill(process.pid, signal.SIGKILL)
        await greet(process)

    async with serve() as served:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(WorkerProcess, "greet", greet_the_dead)
            control = await served.workers.open(other())
        answers = [await ask_anew(await port_of(control)) for _ in range(10)]
        assert answers == [b"other"] * 10


async def test_an_address_in_use_and_a_listener_of_the_same_key_are_refused(serve: Serve) -> None:
    async with serve() as served:
        with pytest.raises(AddressInUse):
            await served.workers.open(other(f"127.0.0.1:{served.port}"))
        with pytest.raises(AlreadyOpen):
            await served.workers.open(WorkerListener(name="echo", address="127.0.0.1:0", handler=ECHO))
        with pytest.raises(InvalidOption, match="workers serve tcp"):
            await served.workers.open(other("udp://127.0.0.1:0"))
        assert len(served.workers.listeners()) == 1
        assert await ask(await served.connect()) == b"hello"


@pytest.mark.parametrize("free", range(4))
async def test_a_listener_for_which_no_more_files_may_be_open_is_refused_by_its_address(
    serve: Serve, free: int
) -> None:
    async with serve() as served:
        refused = pytest.raises(CannotBind, match=r"cannot listen on 127\.0\.0\.1:\d+.*: Too many open files")
        with only_files_left(free), refused as caught:
            await served.workers.open(other())
        assert (caught.value.errno, caught.value.hint) == (errno.EMFILE, "Raise the limit on open files: ulimit -n")
        control = await served.workers.open(other())
        assert await ask_anew(await port_of(control)) == b"other"


async def test_workers_may_begin_without_a_listener(loop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3]))
    with anyio.fail_after(120):
        async with Workers([], count=2, loop=loop) as workers:
            for _ in range(2):
                with pytest.raises(EsockdError):
                    await workers.open(other(handler="missing"))
            control = await workers.open(other())
            assert await ask_anew(await port_of(control)) == b"other"
        async with Workers([], count=2, loop=loop):
            pass


async def test_a_block_that_is_left_while_the_first_listener_is_being_opened_in_vain_ends(
    loop: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3]))
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as task_group, Workers([], count=1, loop=loop) as workers:

            async def open_in_vain() -> None:
                with pytest.raises(EsockdError, match="the code is broken"):
                    await workers.open(other("127.0.0.1:0", "broken_once_told", str(tmp_path)))

            task_group.start_soon(open_in_vain)
            await eventually((tmp_path / "starting").exists)
            task_group.start_soon(break_once_it_stops, workers, tmp_path)


async def break_once_it_stops(workers: Workers, folder: Path) -> None:
    await eventually(lambda: workers._supervisor._is_stopping)
    (folder / "broken").touch()
