"""Leaving in the end, whatever the thread of the event loop is in the midst of."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any, cast

import anyio.lowlevel
import pytest
from tests.patience import PATIENCE_S

from esockd_cli._forced_end import BLOCKED_AFTER_S, ForcedEnd
from esockd_cli._host import Host
from esockd_cli._output import Output
from esockd_cli._run import Run
from esockd_core import Listener

if TYPE_CHECKING:
    from collections.abc import Iterator

    from esockd_core import Stats, StreamConnection


class Left(BaseException):
    """The process would have ended here."""


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """A run whose time is over."""

    def leave(status: int) -> None:
        raise Left(status)

    async def handle(_: StreamConnection) -> None: ...

    monkeypatch.setattr(os, "_exit", leave)
    run = Run([], "asyncio", Output(), host=Host())
    run._listeners.append(Listener("echo", "127.0.0.1:0", handle))
    yield run
    run._signals.__exit__(None, None, None)


def test_it_leaves_though_its_counters_cannot_be_read(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def stats(_: Listener) -> Stats:
        raise RuntimeError("dictionary changed size during iteration")

    monkeypatch.setattr(Listener, "stats", stats)
    with pytest.raises(Left):
        run._end.force()


def test_it_lets_the_other_thread_finish_the_summary(run: Run, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    is_reading, may_go_on = threading.Event(), threading.Event()
    stats_of = Listener.stats

    def stats(listener: Listener) -> Stats:
        is_reading.set()
        assert may_go_on.wait(PATIENCE_S)
        return stats_of(listener)

    monkeypatch.setattr(Listener, "stats", stats)
    monkeypatch.setattr("esockd_cli._run.SUMMARY_S", 20.0)
    other = threading.Thread(target=run._sum_up)
    other.start()
    assert is_reading.wait(PATIENCE_S)
    threading.Timer(0.05, may_go_on.set).start()
    with pytest.raises(Left):
        run._end.force()
    other.join(PATIENCE_S)
    assert "0 accepted" in capsys.readouterr().err


@pytest.mark.anyio
async def test_what_a_program_does_after_its_event_loop_blocks_none(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    end = ForcedEnd(cast("Any", None), lambda: None, "echo")
    async with anyio.create_task_group() as task_group:
        task_group.start_soon(end.beat)
        await anyio.lowlevel.checkpoint()
        later = time.monotonic() + 2 * BLOCKED_AFTER_S
        monkeypatch.setattr("esockd_cli._forced_end.time.monotonic", lambda: later)
        end._tell_blocked()
        assert "the handler echo blocks the event loop" in caplog.text
        caplog.clear()
        task_group.cancel_scope.cancel()
    end._tell_blocked()
    assert caplog.text == ""
