"""A rehearsal over workers: one imagined listener for all of them, begun and made live in all or in none."""

from __future__ import annotations

import os
import signal
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.admission.test_rehearsal_model import LIMITS, RULES, STEPS, Place
from tests.core.conftest import until
from tests.core.workers.conftest import ask_all
from tests.core.workers.in_process import Crew, Refusing, Worker, workers_here

from esockd_cidr import AccessList
from esockd_core import (
    InstanceStatus,
    InvalidOption,
    ListenerClosed,
    ListenerOptions,
    RehearsalConflict,
    RehearsalReport,
    merge_options,
)
from esockd_core._admission.rules import RulesInFront
from esockd_core._admission.shadow import Shadow
from esockd_core.workers._admission import SharedAdmission
from esockd_core.workers._limits import Limits
from esockd_core.workers._memory import SharedMemory
from esockd_core.workers._process import WorkerProcess
from esockd_ratelimit.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from tests.core.workers.conftest import Serve, Served

    from esockd_core._remote.channel import Channel
    from esockd_core.workers._memory import ListenerMemory


@pytest.fixture(scope="module")
def shared() -> Iterator[SharedMemory]:
    memory = SharedMemory.create(2)
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
        self.live = shared.of_listener(0)
        self.live.begin_as(shared.of_listener(1))  # which is as at first
        self.workers = [OfWorker(FakeClock(), self.options) for _ in range(3)]
        for slot, worker in enumerate(self.workers):
            shared.use_slot(slot)
            worker.share(self.live, slot)
        self.changed = Place(FakeClock(), self.options)
        self.changed.admission.limiter = self.changed.admission.source_limiter = None
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


async def report(crew: Crew) -> RehearsalReport:
    found = await crew.control.get_rehearsal()
    assert found is not None
    return found


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("limit", "stage"),
    [
        ({"max_connections": 3}, "closed_max_limit"),
        ({"max_conn_rate": "1/h burst 3"}, "closed_rate_limited"),
        ({"max_connections_per_source": 3}, "closed_max_limit"),
        ({"max_conn_rate_per_source": "1/h burst 3"}, "closed_rate_limited"),
    ],
    ids=lambda given: next(iter(given)) if isinstance(given, dict) else "",
)
async def test_a_limit_is_rehearsed_over_all_workers_and_made_live_in_all(limit: dict[str, Any], stage: str) -> None:
    async with workers_here() as crew:
        first = await crew.control.rehearse("deny 127.0.0.9", **limit)
        assert (first.state, first.seen, first.rules) == ("running", 0, ("deny 127.0.0.9",))
        clients = [await crew.connect(number % 2) for number in range(5)]
        clients.append(await crew.connect(1, "127.0.0.9"))

        told = await report(crew)
        assert (told.seen, told.refused) == (6, {stage: 2, "closed_forbidden": 1})
        assert told.newly_refused == told.refused
        assert [(each.source, each.refused) for each in told.top_sources] == [("127.0.0.1", 2), ("127.0.0.9", 1)]
        assert {each.client for each in told.examples} == {client.getsockname() for client in clients[3:]}

        last = await crew.control.commit_rehearsal()
        assert (last.state, last.seen, [change.name for change in last.changes]) == ("committed", 6, [*limit])
        assert await crew.control.get_rehearsal() is None
        for worker in crew.workers:
            assert await worker.listener.get_rehearsal() is None
            assert [str(rule) for rule in worker.listener.access_rules.rules] == ["deny 127.0.0.9"]
            assert {name: getattr(worker.listener.options, name) for name in limit} == limit
        for client in clients:
            client.close()


@pytest.mark.anyio
async def test_a_rehearsal_begins_in_every_worker_or_in_none() -> None:
    async with workers_here() as crew:
        first, second = crew.workers
        second.stand_in = Refusing(second.listener, InvalidOption("not here", option="x"), "rehearse")
        with pytest.raises(InvalidOption, match="not here"):
            await crew.control.rehearse(max_connections=3)
        assert await crew.control.get_rehearsal() is None
        assert await first.listener.get_rehearsal() is None
        assert crew.replaced == []

        second.stand_in = None
        await crew.control.rehearse(max_connections=3)
        with pytest.raises(RehearsalConflict, match="already"):
            await crew.control.rehearse(max_connections=4)
        assert (await crew.control.cancel_rehearsal()).state == "cancelled"
        for worker in crew.workers:
            assert await worker.listener.get_rehearsal() is None
        for nothing in (crew.control.cancel_rehearsal(), crew.control.commit_rehearsal()):
            with pytest.raises(RehearsalConflict, match="no rehearsal"):
                await nothing


class Pausing:
    """A worker that does what it is asked once, and answers later."""

    def __init__(self, worker: Worker, method: str) -> None:
        self._worker, self._method = worker, method
        self.asked, self.may_answer = anyio.Event(), anyio.Event()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._worker.listener, name)
        return partial(self._pause, method) if name == self._method else method

    async def _pause(self, method: Callable[..., Awaitable[object]], *arguments: object, **options: object) -> object:
        self._worker.stand_in = None  # the next one is answered at once
        answer = await method(*arguments, **options)
        self.asked.set()
        await self.may_answer.wait()
        return answer


@pytest.mark.anyio
async def test_a_rehearsal_is_known_once_every_worker_has_begun_it_and_not_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("esockd_core.workers._asking.CHANGE_S", 60.0)
    async with workers_here() as crew, anyio.create_task_group() as task_group:
        version = crew.model.version
        crew.workers[1].stand_in = pausing = Pausing(crew.workers[1], "rehearse")
        task_group.start_soon(partial(crew.control.rehearse, max_connections=3))
        await pausing.asked.wait()
        assert await crew.control.get_rehearsal() is None
        assert crew.model.order(1).rehearsal is None, "what a process is told that is started now"
        assert crew.model.version == version

        pausing.may_answer.set()
        await until(lambda: crew.model.version != version)  # which is why that process is replaced
        assert crew.model.order(1).rehearsal is not None
        assert (await report(crew)).state == "running"


@pytest.mark.anyio
async def test_a_listener_that_begins_to_close_before_every_worker_rehearses_has_no_rehearsal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("esockd_core.workers._asking.CHANGE_S", 60.0)
    async with workers_here() as crew:
        crew.workers[1].stand_in = pausing = Pausing(crew.workers[1], "rehearse")

        async def rehearse() -> None:
            with pytest.raises(ListenerClosed):
                await crew.control.rehearse(max_connections=3)

        async with anyio.create_task_group() as task_group:
            task_group.start_soon(rehearse)
            await pausing.asked.wait()
            await crew.control.close()
            pausing.may_answer.set()
        assert await crew.control.get_rehearsal() is None


class Answering:
    """The channel of a process that works."""

    async def request(self, *_: object) -> dict[str, Any]:
        status = InstanceStatus(name="", pid=1, version="", event_loop="trio", started_at=0.0, uptime=0.0)
        return status.as_dict()


@pytest.mark.anyio
@pytest.mark.parametrize("why", ["for its report", "whether it works"])
async def test_what_a_worker_tells_late_of_a_rehearsal_is_not_counted_in_the_next_one(
    why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("esockd_core.workers._rehearsing.ASK_S", 60.0)
    async with workers_here() as crew:
        await crew.control.rehearse(max_connections=3)
        worker = crew.workers[1]
        client = await crew.connect(1)
        pausing: Any = Pausing(worker, "get_rehearsal")
        process = WorkerProcess(1, 1, 1)
        process._channel = cast("Channel", Answering())
        process._controls[0], process.rehearsals = pausing, worker.rehearsals
        async with anyio.create_task_group() as asking:
            if why == "for its report":
                worker.stand_in = pausing
                asking.start_soon(crew.control.get_rehearsal)
            else:
                asking.start_soon(process.look)
            await pausing.asked.wait()
            assert (await crew.control.cancel_rehearsal()).seen == 1
            await crew.control.rehearse(max_connections=4)
            worker.state = "slow"  # so that nobody asks it again
            pausing.may_answer.set()
        assert (await report(crew)).seen == 0
        client.close()


@pytest.mark.anyio
async def test_a_rehearsal_that_one_worker_does_not_make_live_goes_on_in_all() -> None:
    async with workers_here(access_rules=["deny 10.0.0.0/8"]) as crew:
        first, second = crew.workers
        await crew.control.rehearse("deny 127.0.0.9", max_connections=3, max_conn_rate="1/h burst 2")
        second.stand_in = Refusing(second.listener, InvalidOption("not here", option="x"), "set_options")
        with pytest.raises(InvalidOption, match="not here"):
            await crew.control.commit_rehearsal()

        assert crew.replaced == []
        assert (await crew.control.get_options())["max_conn_rate"] is None
        for worker in crew.workers:
            assert (worker.listener.options.max_connections, worker.listener.options.max_conn_rate) == (1024, None)
            assert [str(rule) for rule in worker.listener.access_rules.rules] == ["deny 10.0.0.0/8"]
        clients = [await crew.connect(0), await crew.connect(1), await crew.connect(0)]
        assert (await report(crew)).refused == {"closed_rate_limited": 1}
        second.stand_in = None
        assert (await crew.control.commit_rehearsal()).state == "committed"
        assert first.listener.options.max_connections == second.listener.options.max_connections == 3
        for client in clients:
            client.close()


@pytest.mark.anyio
async def test_what_somebody_else_has_changed_since_is_not_overwritten() -> None:
    async with workers_here() as crew:
        await crew.control.rehearse("deny 127.0.0.9", max_connections=3)
        await crew.control.set_options(max_connections=5, idle_timeout=60.0)
        with pytest.raises(RehearsalConflict, match="max_connections was changed from 1024 to 5"):
            await crew.control.commit_rehearsal()
        await crew.control.set_options(max_connections=1024)
        await crew.control.deny("127.0.0.9")
        with pytest.raises(RehearsalConflict, match="was put in"):
            await crew.control.commit_rehearsal()


@pytest.mark.anyio
async def test_what_cannot_be_rehearsed_is_refused_before_any_worker_is_asked() -> None:
    async with workers_here(access_rules=["deny 10.0.0.0/8"]) as crew:
        for worker in crew.workers:
            worker.stand_in = Refusing(worker.listener, AssertionError("it was asked"), "rehearse", "cancel_rehearsal")
        for rules, changes in (
            ((), {}),
            (("deny 10.0.0.0/8",), {}),
            (("deny nowhere",), {}),
            ((), {"idle_timeout": 3.0}),
            ((), {"max_connections": 0}),
            ((), {"max_connections": 3, "duration": 0}),
        ):
            with pytest.raises(InvalidOption):
                await crew.control.rehearse(*rules, **changes)


@pytest.mark.anyio
async def test_a_rehearsal_ends_by_itself_and_keeps_its_report() -> None:
    async with workers_here() as crew:
        await crew.control.rehearse(max_connections=3, duration=0.01)
        await until(lambda: all(worker.listener._rehearsal.state == "over" for worker in crew.workers))  # type: ignore[union-attr]
        told = await report(crew)
        assert (told.state, told.reason, told.remaining) == ("over", "its 0.01 seconds have passed", 0)
        assert (await report(crew)) == told
        assert (await crew.control.rehearse(max_connections=4)).state == "running"
        await crew.control.set_options(shutdown_timeout=1.0)
        assert (await report(crew)).state == "running"
        first = crew.workers[0].listener._rehearsal
        assert first is not None
        first.end("over", "it failed: an example")
        told = await report(crew)
        assert (told.state, told.reason) == ("over", "worker 0: it failed: an example")


@pytest.mark.anyio
async def test_options_that_change_meanwhile_hold_for_the_imagined_listener_of_all_workers() -> None:
    async with workers_here(max_conn_rate="1/h burst 100") as crew:
        await crew.control.rehearse(max_connections=50)
        await crew.control.set_options(max_conn_rate="1/h burst 3")
        clients = [await crew.connect(number % 2) for number in range(3)]
        assert (await report(crew)).refused == {}
        await crew.control.set_options(max_conn_rate=None)
        clients += [await crew.connect(number % 2) for number in range(3)]
        told = await report(crew)
        assert (told.seen, told.refused, told.newly_admitted) == (6, {}, {})
        with anyio.fail_after(60):
            await crew.control.close()
        told = await report(crew)
        assert (told.state, told.reason, told.seen) == ("over", "the listener was closed", 6)
        for client in clients:
            client.close()


@pytest.mark.anyio
@pytest.mark.timeout(240)
async def test_a_worker_that_takes_the_place_of_another_one_goes_on_with_its_rehearsal(serve: Serve) -> None:
    async with serve() as served:
        await served.listener.rehearse(max_conn_rate="1/h burst 4")
        assert await ask_all([await served.connect() for _ in range(2)]) == [b"hello"] * 2
        await told(served, lambda report: report.seen == 2)
        await served.workers.restart()
        assert await ask_all([await served.connect() for _ in range(5)]) == [b"hello"] * 5
        report = await told(served, lambda report: report.seen == 7)
        assert (report.state, report.begun_again, report.refused) == ("running", 2, {"closed_rate_limited": 3})

        os.kill(min(served.pids()), signal.SIGKILL)
        await told(served, lambda report: report.begun_again == 3)
        assert await ask_all([await served.connect() for _ in range(2)]) == [b"hello"] * 2
        await told(served, lambda report: report.seen == 9)
        last = await served.listener.commit_rehearsal()
        assert (last.state, last.seen, last.refused) == ("committed", 9, {"closed_rate_limited": 5})
        answers = await ask_all([await served.connect() for _ in range(6)])
        assert answers.count(b"hello") == 4


async def told(served: Served, is_so: Callable[[RehearsalReport], bool]) -> RehearsalReport:
    """The report once it is so; the time limit of the block bounds that."""
    while True:
        report = await served.listener.get_rehearsal()
        assert report is not None
        if is_so(report):
            return report
        await anyio.sleep(0.01)
