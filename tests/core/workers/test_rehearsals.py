"""A rehearsal over workers: one imagined listener for all of them, begun and made live in all or in none."""

from __future__ import annotations

import os
import signal
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import anyio
import pytest
from tests.core.conftest import until
from tests.core.workers.conftest import ask_all
from tests.core.workers.in_process import Refusing, Worker, WorkersHere, workers_here

from esockd_core import (
    InstanceStatus,
    InvalidOption,
    ListenerClosed,
    RehearsalConflict,
    RehearsalReport,
)
from esockd_core.workers._process import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.core.workers.conftest import Serve, Served

    from esockd_core._remote.channel import Channel


async def report(here: WorkersHere) -> RehearsalReport:
    found = await here.control.get_rehearsal()
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
    async with workers_here() as here:
        first = await here.control.rehearse("deny 127.0.0.9", **limit)
        assert (first.state, first.seen, first.rules) == ("running", 0, ("deny 127.0.0.9",))
        clients = [await here.connect(number % 2) for number in range(5)]
        clients.append(await here.connect(1, "127.0.0.9"))

        told = await report(here)
        assert (told.seen, told.refused) == (6, {stage: 2, "closed_forbidden": 1})
        assert told.newly_refused == told.refused
        assert [(each.source, each.refused) for each in told.top_sources] == [("127.0.0.1", 2), ("127.0.0.9", 1)]
        assert {each.client for each in told.examples} == {client.getsockname() for client in clients[3:]}

        last = await here.control.commit_rehearsal()
        assert (last.state, last.seen, [change.name for change in last.changes]) == ("committed", 6, [*limit])
        assert await here.control.get_rehearsal() is None
        for worker in here.workers:
            assert await worker.listener.get_rehearsal() is None
            assert [str(rule) for rule in worker.listener.access_rules.rules] == ["deny 127.0.0.9"]
            assert {name: getattr(worker.listener.options, name) for name in limit} == limit
        for client in clients:
            client.close()


@pytest.mark.anyio
async def test_a_rehearsal_begins_in_every_worker_or_in_none() -> None:
    async with workers_here() as here:
        first, second = here.workers
        second.stand_in = Refusing(second.listener, InvalidOption("not here", option="x"), "rehearse")
        with pytest.raises(InvalidOption, match="not here"):
            await here.control.rehearse(max_connections=3)
        assert await here.control.get_rehearsal() is None
        assert await first.listener.get_rehearsal() is None
        assert here.replaced == []

        second.stand_in = None
        await here.control.rehearse(max_connections=3)
        with pytest.raises(RehearsalConflict, match="already"):
            await here.control.rehearse(max_connections=4)
        assert (await here.control.cancel_rehearsal()).state == "cancelled"
        for worker in here.workers:
            assert await worker.listener.get_rehearsal() is None
        for nothing in (here.control.cancel_rehearsal(), here.control.commit_rehearsal()):
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
    async with workers_here() as here, anyio.create_task_group() as task_group:
        version = here.model.version
        here.workers[1].stand_in = pausing = Pausing(here.workers[1], "rehearse")
        task_group.start_soon(partial(here.control.rehearse, max_connections=3))
        await pausing.asked.wait()
        assert await here.control.get_rehearsal() is None
        assert here.model.order(1).rehearsal is None, "what a process is told that is started now"
        assert here.model.version == version

        pausing.may_answer.set()
        await until(lambda: here.model.version != version)  # which is why that process is replaced
        assert here.model.order(1).rehearsal is not None
        assert (await report(here)).state == "running"


@pytest.mark.anyio
async def test_a_listener_that_begins_to_close_before_every_worker_rehearses_has_no_rehearsal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("esockd_core.workers._asking.CHANGE_S", 60.0)
    async with workers_here() as here:
        here.workers[1].stand_in = pausing = Pausing(here.workers[1], "rehearse")

        async def rehearse() -> None:
            with pytest.raises(ListenerClosed):
                await here.control.rehearse(max_connections=3)

        async with anyio.create_task_group() as task_group:
            task_group.start_soon(rehearse)
            await pausing.asked.wait()
            await here.control.close()
            pausing.may_answer.set()
        assert await here.control.get_rehearsal() is None


@pytest.mark.anyio
async def test_a_listener_with_a_rehearsal_closes_while_its_last_report_is_awaited_and_though_nobody_waits_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("esockd_core.workers._rehearsing.ASK_S", 60.0)
    async with workers_here() as here:
        await here.control.rehearse(max_connections=3)
        here.workers[1].stand_in = pausing = Pausing(here.workers[1], "get_rehearsal")
        async with anyio.create_task_group() as closing:
            closing.start_soon(here.control.close)
            await pausing.asked.wait()
            assert (await here.control.get_status()).state == "draining"
            with pytest.raises(ListenerClosed):
                await here.control.deny("192.0.2.1")
            closing.cancel_scope.cancel()
        pausing.may_answer.set()
        await here.control.wait_closed()
        told = await report(here)
        assert (told.state, told.reason) == ("over", "the listener was closed")


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
    async with workers_here() as here:
        await here.control.rehearse(max_connections=3)
        worker = here.workers[1]
        client = await here.connect(1)
        pausing: Any = Pausing(worker, "get_rehearsal")
        process = WorkerProcess(1, 1, 1)
        process._channel = cast("Channel", Answering())
        process._parts[0], process.rehearsals = pausing, worker.rehearsals
        async with anyio.create_task_group() as asking:
            if why == "for its report":
                worker.stand_in = pausing
                asking.start_soon(here.control.get_rehearsal)
            else:
                asking.start_soon(process.look)
            await pausing.asked.wait()
            assert (await here.control.cancel_rehearsal()).seen == 1
            await here.control.rehearse(max_connections=4)
            worker.state = "slow"  # so that nobody asks it again
            pausing.may_answer.set()
        assert (await report(here)).seen == 0
        client.close()


@pytest.mark.anyio
async def test_a_rehearsal_that_one_worker_does_not_make_live_goes_on_in_all() -> None:
    async with workers_here(access_rules=["deny 10.0.0.0/8"]) as here:
        first, second = here.workers
        await here.control.rehearse("deny 127.0.0.9", max_connections=3, max_conn_rate="1/h burst 2")
        second.stand_in = Refusing(second.listener, InvalidOption("not here", option="x"), "set_options")
        with pytest.raises(InvalidOption, match="not here"):
            await here.control.commit_rehearsal()

        assert here.replaced == []
        assert (await here.control.get_options())["max_conn_rate"] is None
        for worker in here.workers:
            assert (worker.listener.options.max_connections, worker.listener.options.max_conn_rate) == (1024, None)
            assert [str(rule) for rule in worker.listener.access_rules.rules] == ["deny 10.0.0.0/8"]
        clients = [await here.connect(0), await here.connect(1), await here.connect(0)]
        assert (await report(here)).refused == {"closed_rate_limited": 1}
        second.stand_in = None
        assert (await here.control.commit_rehearsal()).state == "committed"
        assert first.listener.options.max_connections == second.listener.options.max_connections == 3
        for client in clients:
            client.close()


@pytest.mark.anyio
async def test_what_somebody_else_has_changed_since_is_not_overwritten() -> None:
    async with workers_here() as here:
        await here.control.rehearse("deny 127.0.0.9", max_connections=3)
        await here.control.set_options(max_connections=5, idle_timeout=60.0)
        with pytest.raises(RehearsalConflict, match="max_connections was changed from 1024 to 5"):
            await here.control.commit_rehearsal()
        await here.control.set_options(max_connections=1024)
        await here.control.deny("127.0.0.9")
        with pytest.raises(RehearsalConflict, match="was put in"):
            await here.control.commit_rehearsal()


@pytest.mark.anyio
async def test_what_cannot_be_rehearsed_is_refused_before_any_worker_is_asked() -> None:
    async with workers_here(access_rules=["deny 10.0.0.0/8"]) as here:
        for worker in here.workers:
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
                await here.control.rehearse(*rules, **changes)


@pytest.mark.anyio
async def test_a_rehearsal_ends_by_itself_and_keeps_its_report() -> None:
    async with workers_here() as here:
        await here.control.rehearse(max_connections=3, duration=0.01)
        await until(lambda: all(worker.listener._rehearsal.state == "over" for worker in here.workers))  # type: ignore[union-attr]
        told = await report(here)
        assert (told.state, told.reason, told.remaining) == ("over", "its 0.01 seconds have passed", 0)
        assert (await report(here)) == told
        assert (await here.control.rehearse(max_connections=4)).state == "running"
        await here.control.set_options(shutdown_timeout=1.0)
        assert (await report(here)).state == "running"
        first = here.workers[0].listener._rehearsal
        assert first is not None
        first.end("over", "it failed: an example")
        told = await report(here)
        assert (told.state, told.reason) == ("over", "worker 0: it failed: an example")


@pytest.mark.anyio
async def test_options_that_change_meanwhile_hold_for_the_imagined_listener_of_all_workers() -> None:
    async with workers_here(max_conn_rate="1/h burst 100") as here:
        await here.control.rehearse(max_connections=50)
        await here.control.set_options(max_conn_rate="1/h burst 3")
        clients = [await here.connect(number % 2) for number in range(3)]
        assert (await report(here)).refused == {}
        await here.control.set_options(max_conn_rate=None)
        clients += [await here.connect(number % 2) for number in range(3)]
        told = await report(here)
        assert (told.seen, told.refused, told.newly_admitted) == (6, {}, {})
        with anyio.fail_after(60):
            await here.control.close()
        told = await report(here)
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
