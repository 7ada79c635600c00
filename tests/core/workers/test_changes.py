"""A change over workers, in this process: one that a worker refuses is taken back where it was made."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from tests.core.conftest import until
from tests.core.workers.in_process import Refusing, Worker, WorkersHere, workers_here

from esockd_cidr import AccessList
from esockd_core import ControlError, InvalidOption, ListenerClosed
from esockd_core.workers._silence import answered

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from esockd_core import ListenerControl

pytestmark = pytest.mark.anyio

OTHER = "tests.core.workers.programs:other"
CHANGES: dict[str, Callable[[ListenerControl], Awaitable[Any]]] = {
    "set_options": lambda control: control.set_options(
        max_connections=7, max_conn_rate="1/h", tcp={"nodelay": False}, access_rules=["deny 192.0.2.1"]
    ),
    "reset_options": lambda control: control.reset_options(idle_timeout=60.0),
    "allow": lambda control: control.allow("192.0.2.1"),
    "deny": lambda control: control.deny("192.0.2.1"),
    "insert_rule": lambda control: control.insert_rule(1, "deny 192.0.2.1"),
    "remove_rule": lambda control: control.remove_rule("deny 10.0.0.0/8"),
    "replace_rules": lambda control: control.replace_rules("deny 192.0.2.1"),
    "set_handler": lambda control: control.set_handler(OTHER),
    "suspend": lambda control: control.suspend(),
}


async def state_of(worker: Worker) -> tuple[object, ...]:
    """All that a change may change."""
    listener = worker.listener
    status = await listener.get_status()
    return await listener.get_options(), await listener.get_access_rules(), status.handler, status.state


def refuse(worker: Worker, *methods: str) -> None:
    worker.stand_in = Refusing(worker.listener, InvalidOption("not here", option="x"), *methods)


@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_that_one_worker_refuses_is_taken_back_in_the_others(change: str) -> None:
    rules = AccessList(["deny 10.0.0.0/8"], default="deny")
    async with workers_here(3, access_rules=rules, max_connections=9, max_conn_rate="1/h burst 3") as here:
        before = [await state_of(worker) for worker in here.workers]
        shown = await here.control.get_options(), await here.control.get_status()
        refuse(here.workers[2], change)
        with pytest.raises(InvalidOption, match="not here"):
            await CHANGES[change](here.control)
        assert [await state_of(worker) for worker in here.workers] == before
        assert (await here.control.get_options(), await here.control.get_status()) == shown
        assert here.replaced == []

        here.workers[2].stand_in = None
        await CHANGES[change](here.control)
        for worker in here.workers:
            assert await state_of(worker) != before[0]


class Looking:
    """A worker that looks at what a process would be told that starts while it is asked, and then refuses."""

    def __init__(self, here: WorkersHere) -> None:
        self._here = here
        self.told: list[object] = []

    def __getattr__(self, name: str) -> Any:
        return self._look

    async def _look(self, *_: object, **__: object) -> None:
        order = self._here.model.order(0)
        self.told.append((order.options.max_conn_rate, order.rules, order.handler))
        raise InvalidOption("not here", option="x")


@pytest.mark.parametrize("change", CHANGES)
async def test_a_process_that_starts_meanwhile_hears_nothing_of_a_change_that_is_refused(change: str) -> None:
    rules = AccessList(["deny 10.0.0.0/8"], default="deny")
    async with workers_here(2, access_rules=rules, max_conn_rate="1/h burst 3") as here:
        looking = here.workers[1].stand_in = Looking(here)
        order, version = here.model.order(0), here.model.version
        with pytest.raises(InvalidOption, match="not here"):
            await CHANGES[change](here.control)
        assert looking.told == [(order.options.max_conn_rate, order.rules, order.handler)]
        assert here.model.version > version, "one that may have heard of it does not stay"


async def test_a_rate_that_is_refused_leaves_the_tokens_of_the_one_before() -> None:
    async with workers_here(2, max_conn_rate="1/h burst 5") as here:
        refuse(here.workers[1], "set_options")
        with pytest.raises(InvalidOption):
            await here.control.set_options(max_conn_rate="1/h burst 1")
        clients = [await here.connect(0) for _ in range(6)]
        stats = here.workers[0].listener.stats()
        assert (stats.accepted, stats.closed_rate_limited) == (5, 1)
        for client in clients:
            client.close()


async def test_a_worker_that_is_known_to_be_slow_is_asked_first() -> None:
    async with workers_here(3) as here:
        here.workers[2].state = "slow"
        here.workers[2].stand_in = Deaf(patience_s=0)
        refuse(here.workers[0], "deny")  # which is never asked
        with pytest.raises(ControlError, match="worker 2 does not answer: nothing was changed"):
            await here.control.deny("192.0.2.1")


async def test_suspending_what_is_suspended_leaves_it_so_when_a_worker_refuses() -> None:
    async with workers_here() as here:
        await here.control.suspend()
        refuse(here.workers[1], "suspend")
        with pytest.raises(InvalidOption):
            await here.control.suspend()
        assert [worker.listener.state for worker in here.workers] == ["suspended", "suspended"]


async def test_a_worker_that_cannot_take_a_change_back_is_replaced() -> None:
    async with workers_here() as here:
        refuse(here.workers[0], "replace_rules")
        refuse(here.workers[1], "deny")
        with pytest.raises(InvalidOption):
            await here.control.deny("192.0.2.1")
        assert here.replaced == [here.workers[0]]
        assert (await here.control.get_access_rules()).rules == ()


class Undoing:
    """A worker that takes a change back only while others do, or whose end of the connection is broken."""

    def __init__(self, control: ListenerControl, met: list[object], error: Exception | None = None) -> None:
        self._control, self._met, self._error = control, met, error

    def __getattr__(self, name: str) -> Any:
        return self._undo if name == "replace_rules" else getattr(self._control, name)

    async def _undo(self, *rules: str) -> None:
        self._met.append(self)
        await until(lambda: len(self._met) == 3)
        if self._error is not None:
            raise self._error
        await self._control.replace_rules(*rules)


async def test_workers_take_a_change_back_all_at_once_and_one_that_fails_at_it_keeps_no_other_from_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("esockd_core.workers._asking.CHANGE_S", 60.0)
    async with workers_here(4) as here:
        met: list[object] = []
        for worker, error in zip(here.workers, (None, None, ValueError("an answer of another kind")), strict=False):
            worker.stand_in = Undoing(worker.listener, met, error)
        refuse(here.workers[3], "deny")
        with pytest.raises(InvalidOption, match="not here"):
            await here.control.deny("192.0.2.1")
        assert here.replaced == [here.workers[2]]
        assert "worker 2 cannot take a change back" in caplog.text
        assert [len(worker.listener.access_rules) for worker in here.workers] == [0, 0, 1, 0]


class Deaf:
    """A worker that answers nothing."""

    def __init__(self, patience_s: float | None = None) -> None:
        self._patience_s = patience_s
        self.is_asked = False

    def __getattr__(self, name: str) -> Any:
        async def never(*_: object, **__: object) -> None:
            self.is_asked = True
            with anyio.fail_after(self._patience_s):  # and not `CHANGE_S`, which is for the other workers too
                await anyio.sleep_forever()

        return never


async def test_a_change_that_a_worker_does_not_answer_is_taken_back_and_the_worker_replaced() -> None:
    async with workers_here() as here:
        before = await state_of(here.workers[0])
        here.workers[1].stand_in = Deaf(patience_s=0)
        with pytest.raises(ControlError, match="worker 1 does not answer: nothing was changed"):
            await here.control.set_options(max_connections=7)
        assert here.replaced == [here.workers[1]]
        assert await state_of(here.workers[0]) == before


async def test_a_change_that_is_cancelled_on_its_way_is_taken_back() -> None:
    async with workers_here() as here:
        before = await state_of(here.workers[0])
        deaf = here.workers[1].stand_in = Deaf()
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(here.control.deny, "192.0.2.1")
            await until(lambda: deaf.is_asked)  # so that worker 0 has answered, and has not only made the change
            task_group.cancel_scope.cancel()
        assert await state_of(here.workers[0]) == before
        assert here.replaced == [here.workers[1]]
        assert (await here.control.get_access_rules()).rules == ()


async def test_a_worker_that_answered_just_before_a_change_was_cancelled_takes_it_back_and_is_not_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with workers_here() as here:
        before = [await state_of(worker) for worker in here.workers]
        with anyio.CancelScope() as changing:

            async def answered_too_late(pid: int, for_s: float, ask: Callable[[], Awaitable[Any]]) -> None:
                await answered(pid, for_s, ask)
                changing.cancel()
                await checkpoint()

            with monkeypatch.context() as patched:
                patched.setattr("esockd_core.workers._asking.answered", answered_too_late)
                await here.control.deny("192.0.2.1")
        assert changing.cancelled_caught
        assert [await state_of(worker) for worker in here.workers] == before
        assert here.replaced == []


async def test_a_change_that_is_taken_back_while_a_worker_keeps_the_lock_fails_for_its_own_reason(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("esockd_core.workers._model.LOCK_TRIES", 2)
    monkeypatch.setattr("esockd_core.workers._changing.PUT_AGAIN_S", 0.01)
    async with workers_here(max_conn_rate="1/h burst 2") as here:
        rate = "1000000/s burst 2"
        new = replace(here.control.options, max_conn_rate=rate)
        change = await here.control._make(new, lambda control: control.set_options(max_conn_rate=rate))
        await here.control.put_rates(change)  # as for several listeners, of which another one fails now
        with monkeypatch.context() as patched:
            patched.setattr("esockd_core._platform.shared_memory.SharedLock.take_nowait", lambda _: False)
            await here.control.take_back(change)
        assert "a worker has stopped while it judged a client" in caplog.text
        await until(lambda: here.model._rates == here.model.options)
        clients = [await here.connect(0) for _ in range(3)]
        stats = here.workers[0].listener.stats()
        assert (stats.accepted, stats.closed_rate_limited) == (2, 1)
        for client in clients:
            client.close()


async def test_a_change_that_waits_for_the_lock_of_a_listener_that_closes_meanwhile_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with workers_here() as here:

        def close(_: object) -> bool:
            here.model.state = "closed"
            here.model.close_memory()
            return False

        monkeypatch.setattr("esockd_core._platform.shared_memory.SharedLock.take_nowait", close)
        with pytest.raises(ListenerClosed):
            await here.control.set_options(max_conn_rate="1/h")
        assert here.model.memory.lock.holder() is None


async def test_the_default_of_access_rules_holds_in_every_worker_whatever_replaces_them() -> None:
    async with workers_here() as here:
        await here.control.set_options(access_rules=AccessList(["allow 127.0.0.1"], default="deny"))
        await here.control.replace_rules("allow 127.0.0.2")
        assert (await here.control.get_access_rules()).default == "deny"
        for worker in here.workers:
            assert not (await worker.listener.explain("127.0.0.1")).is_admitted
            assert (await worker.listener.explain("127.0.0.2")).is_admitted
