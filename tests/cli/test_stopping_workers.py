"""How a command with workers obeys signals while a worker does not answer."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import anyio
import pytest
from tests.patience import PATIENCE_S

from esockd_cli._host import Host
from esockd_cli._output import Output
from esockd_cli._run_workers import WorkersRun
from esockd_cli._service import Service
from esockd_cli._upgrading import Upgrading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.anyio


class Hanging:
    """A listener whose counters nobody tells until it is told to answer."""

    def __init__(self) -> None:
        self.asked = anyio.Event()
        self.answer = anyio.Event()
        self.closing = anyio.Event()
        self.drained = anyio.Event()

    async def get_stats(self) -> Any:
        self.asked.set()
        await self.answer.wait()
        return SimpleNamespace(current_connections=1)

    async def get_options(self) -> Any:
        return {"shutdown_timeout": 1.0}

    async def close(self) -> None:
        self.closing.set()

    async def drain(self, timeout: float) -> None:
        assert timeout == 0
        self.drained.set()


@contextmanager
def obeying(controls: list[Hanging]) -> Iterator[tuple[WorkersRun, Callable[[int], None]]]:
    """A run of listeners that are open, and what sends it a signal."""
    output = Output(quiet=True)
    workers = cast("Any", SimpleNamespace(count=1, listeners=lambda: controls))
    run = WorkersRun(workers, "asyncio", output, Upgrading(output, None), host=Host())
    run._service = Service(workers)
    run._controls = cast("Any", controls)
    yield run, lambda number: run._signals._receive(number, None)
    run._signals.__exit__(None, None, None)


async def test_a_stop_asks_all_listeners_at_once_how_many_connections_they_have() -> None:
    controls = [Hanging(), Hanging()]
    with anyio.fail_after(PATIENCE_S), obeying(controls) as (run, send):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run._obey)
            send(signal.SIGTERM)
            for control in controls:
                await control.asked.wait()
            for control in controls:
                control.answer.set()
            for control in controls:
                await control.closing.wait()
            tasks.cancel_scope.cancel()


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGUSR1])
async def test_a_signal_is_obeyed_while_no_worker_answers_the_one_before(first: signal.Signals) -> None:
    control = Hanging()
    with anyio.fail_after(PATIENCE_S), obeying([control]) as (run, send):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run._obey)
            send(first)
            await control.asked.wait()
            while run._signals.stops < 2:
                send(signal.SIGTERM)
            await control.drained.wait()
            tasks.cancel_scope.cancel()
