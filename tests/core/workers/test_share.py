"""A share of the workers keeps a process: one that must not go on is replaced as soon as that can be done."""

from __future__ import annotations

import logging
from typing import Any, cast

import anyio
import anyio.lowlevel
import pytest

from esockd_core import ControlError
from esockd_core.workers import _share
from esockd_core.workers._share import Share

pytestmark = pytest.mark.anyio


class Process:
    """As much of a `WorkerProcess` as a share sees."""

    def __init__(self) -> None:
        self.ended = anyio.Event()
        self.started_at = anyio.current_time()

    async def retire(self) -> None:
        self.ended.set()


class Starter:
    """Starts processes, and fails to as often as it is told."""

    def __init__(self) -> None:
        self.closing = anyio.Event()
        self.failures = 0
        self.started: list[Process] = []

    async def start_process(self, share: int) -> Any:
        await anyio.lowlevel.checkpoint()
        if self.failures:
            self.failures -= 1
            raise ControlError("no module named app", code="cannot_start")
        self.started.append(Process())
        return self.started[-1]

    def steer(self) -> None: ...


async def test_a_process_that_serves_what_was_refused_is_replaced_however_often_that_fails(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_share, "PAUSE_FIRST_S", 0.001)
    starter = Starter()
    share = Share(0, cast("Any", starter))
    with anyio.fail_after(60):
        async with anyio.create_task_group() as task_group:
            await task_group.start(share.run)
            starter.failures = 3
            with caplog.at_level(logging.ERROR, "esockd_core"):
                share.replace_unfit()
                await starter.started[0].ended.wait()
            starter.closing.set()
    assert cast("Any", share.current) is starter.started[1]
    assert [record.message for record in caplog.records] == [
        "worker 0 cannot be started again, and is tried until it can: no module named app"
    ]


async def test_a_replacement_that_somebody_waits_for_is_tried_once() -> None:
    starter = Starter()
    share = Share(0, cast("Any", starter))
    with anyio.fail_after(60):
        async with anyio.create_task_group() as task_group:
            await task_group.start(share.run)
            starter.failures = 1
            with pytest.raises(ControlError, match="no module named app"):
                await share.replace()
            starter.closing.set()
    assert len(starter.started) == 1
    assert not starter.started[0].ended.is_set()
