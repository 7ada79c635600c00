"""The shadows of all workers together, against one listener on which the rehearsed changes are made."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.admission.test_rehearsal_model import LIMITS, RULES, STEPS, Place

from esockd_cidr import AccessList
from esockd_core import ListenerOptions, merge_options
from esockd_core._admission.rules import RulesInFront
from esockd_core._admission.shadow import Shadow
from esockd_core._admission.sources import Sources
from esockd_core.workers._admission import SharedAdmission
from esockd_core.workers._limits import Limits
from esockd_core.workers._memory import SharedMemory
from esockd_ratelimit.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from esockd_core.workers._memory import ListenerMemory


@pytest.fixture(scope="module")
def shared() -> Iterator[SharedMemory]:
    memory = SharedMemory.create()
    yield memory
    memory.close()


class OfWorker(Place):
    """One worker's part of a listener without sockets."""

    def share(self, memory: ListenerMemory, slot: int) -> None:
        self.admission = SharedAdmission(
            self.options, self.access, self.site.waiting, self.counters, self.site.log, memory=memory, slot=slot
        )
        self.site.judge, self.site.registry.release = self.admission, self.admission.release


RATES = {
    "max_conn_rate": st.sampled_from(["1/h burst 3", "1/h burst 10"]),
    "max_conn_rate_per_source": st.sampled_from(["1/h", "1/h burst 3"]),
}
CHANGES = st.fixed_dictionaries(
    {}, optional={name: kind for name, kind in LIMITS.items() if "hand" not in name} | RATES
)


Step = tuple[str, int, str, str]


class Beside:
    """Three workers with a rehearsal from some moment on, and one listener on which the changes are made then."""

    def __init__(self, shared: SharedMemory, *, proxied: bool) -> None:
        proxy = {"proxy_protocol": True} if proxied else {}
        self.options = ListenerOptions(max_connections=1000, max_handshaking=1000, **proxy)  # type: ignore[arg-type]
        self.live = shared.live
        self.live.begin_as(SharedMemory.create().live)  # which is as at first
        self.workers = [OfWorker(FakeClock(), self.options) for _ in range(3)]
        for slot, worker in enumerate(self.workers):
            shared.use_slot(slot)
            worker.share(self.live, slot)
        self.changed = Place(FakeClock(), self.options)
        self.changed.admission.limiter = None
        self.changed.admission.sources = Sources(self.changed.clock)
        self.arrived = 0

    def play(self, steps: list[Step]) -> None:
        """What happens at both alike."""
        for kind, which, peer, source in steps:
            known = sorted(number for worker in self.workers for number in worker.clients)
            chosen = known[which % len(known)] if known else 0
            self.arrived += kind == "arrive"
            for place in (self.workers[(self.arrived if kind == "arrive" else chosen) % 3], self.changed):
                match kind:
                    case "arrive":
                        place.arrive(self.arrived, peer, source)
                    case "header":
                        place.send_header(chosen)
                    case "leave":
                        place.leave(chosen)

    def rehearse(self, rules: list[str], changes: Mapping[str, Any]) -> list[Shadow]:
        """Begin to rehearse at the workers, and make the changes at the one listener."""

        def fail(error: Exception) -> None:
            raise error

        new, memory = merge_options(self.options, changes), self.live.imagined
        memory.begin_as(self.live)
        Limits(memory).put(new, self.options)
        shadows = [
            Shadow(worker.site, worker.admission, RulesInFront(AccessList(rules), worker.access), new, fail)
            for worker in self.workers
        ]
        for shadow in shadows:
            shadow.start()
        self.changed.admission.configure(new, self.changed.site.registry)
        for rule in reversed(rules):
            self.changed.access.prepend(rule)
        return shadows


@pytest.mark.parametrize("proxied", [False, True], ids=["direct", "proxied"])
@settings(max_examples=max(25, settings.default.max_examples // 4) if settings.default else 25)
@given(before=STEPS.map(lambda steps: steps[:20]), steps=STEPS, rules=RULES, changes=CHANGES)
def test_the_shadows_of_all_workers_together_refuse_what_one_changed_listener_refuses(
    shared: SharedMemory, *, proxied: bool, before: list[Step], steps: list[Step], rules: list[str], changes: Any
) -> None:
    beside = Beside(shared, proxied=proxied)
    beside.play(before)
    shadows = beside.rehearse(rules, changes)
    beside.play(steps)

    refused: Counter[str] = Counter()
    for shadow in shadows:
        refused.update(shadow.refused)
    assert refused == beside.changed.refused()
    memory = beside.live.imagined
    assert memory.taken() == beside.changed.admission.open_count
    for worker in beside.workers:
        for number in list(worker.clients):
            worker.leave(number)
    assert (memory.taken(), beside.live.taken()) == (0, 0)
