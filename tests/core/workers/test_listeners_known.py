"""The listeners of a program with workers, as its parent knows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from tests.core.workers.conftest import ECHO

from esockd_core.workers import WorkerListener
from esockd_core.workers._counters import POSITIONS, SlotCounters
from esockd_core.workers._listeners import Listeners
from esockd_core.workers._merging import NO_STATS

if TYPE_CHECKING:
    import pytest


class Process:
    """As much of a `WorkerProcess` as a model sees at its end."""

    slot = 0

    def remove(self, _: int) -> Any:
        return NO_STATS


def test_counters_of_the_listeners_that_closed_last_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esockd_core._stats.counters.MOST_CLOSED", 2)
    listeners = Listeners(1, cast("Any", None))
    accepted: list[int] = []
    for name in ("first", "second", "first", "third", "second", "first"):
        model = listeners.make(WorkerListener(name=name, address="127.0.0.1:0", handler=ECHO))
        slot = SlotCounters(model.memory, Process.slot)
        slot.words[POSITIONS["accepted"]] = 1
        slot.close()
        model.settle([cast("Any", Process())])
        accepted.append(model.stats(()).accepted)
        listeners.remove(model.number)
    assert accepted == [1, 1, 2, 1, 1, 1]
