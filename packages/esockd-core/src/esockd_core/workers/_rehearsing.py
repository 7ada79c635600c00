"""The part of a listener's control that rehearses changes over all workers."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Unpack

import anyio

from esockd_cidr import AccessList
from esockd_core._admission.rehearsed_changes import RehearsedChanges, check_duration, rules_in_front
from esockd_core._errors import EsockdError, InvalidOption, RehearsalConflict
from esockd_core.control.interface import REHEARSAL_TIME
from esockd_core.workers._asking import ASK_S
from esockd_core.workers._looking import Looking, wrong_is_invalid
from esockd_core.workers._shared_rehearsal import SharedRehearsal, WorkerRehearsal

if TYPE_CHECKING:
    from esockd_core._options.arguments import OptionArguments
    from esockd_core._options.changes import OptionChange, OptionPlan
    from esockd_core._options.listener import ListenerOptions
    from esockd_core._stats.state import RehearsalState
    from esockd_core.control.interface import ListenerControl
    from esockd_core.control.rehearsal import RehearsalReport
    from esockd_core.workers._asking import Change
    from esockd_core.workers._process import WorkerProcess


class SharedRehearsing(Looking):
    """Rehearses changes in every worker, one rehearsal at a time.

    Each worker judges its own clients. The places and tokens by which they do so are in shared memory, beside the live
    ones, so that a limit is rehearsed over all of them.
    """

    async def rehearse(
        self, *rules: str, duration: float = REHEARSAL_TIME, **changes: Unpack[OptionArguments]
    ) -> RehearsalReport:
        """Judge every client by changed rules and limits too, in every worker or in none."""
        check_duration(duration)
        async with self._workers.changing:
            self._require_open()
            model = self._model
            if model.rehearsal is not None and (await self._look_at(model.rehearsal)).state == "running":
                raise RehearsalConflict(f"listener {model.name} has a rehearsal already: commit it or cancel it first")
            if not rules and not changes:
                raise InvalidOption("it takes rules or options to change", option="changes")
            options = self._in_force()
            changed = model.changed(options, dict(changes))
            with wrong_is_invalid("rules", rules):
                in_front = rules_in_front(rules, changed.access_list() if "access_rules" in changes else model.access)
            planned = RehearsedChanges(in_front, dict(changes), options, changed, model.access)
            await self._begin(SharedRehearsal(planned, duration), changed)
            return await self._look_at(self._found())

    async def _begin(self, rehearsal: SharedRehearsal, changed: ListenerOptions) -> None:
        changes = rehearsal.changes

        async def begin(control: ListenerControl) -> None:
            await _forget(control)  # what it has not heard the end of
            await control.rehearse(*changes.rules, duration=rehearsal.duration, **changes.options)

        model = self._model
        await model.imagine(changed)
        begun = await self._tell(begin, _forget)
        self._require_open()  # or it closes by now, and those of the workers end with it
        model.rehearsal = rehearsal
        model.version += 1
        for process in begun:
            process.rehearsals[model.number] = WorkerRehearsal(rehearsal)

    async def get_rehearsal(self) -> RehearsalReport | None:
        """The report of the rehearsal that is running, or of the last one, over all workers."""
        rehearsal = self._model.rehearsal
        return None if rehearsal is None else await self._look_at(rehearsal)

    async def commit_rehearsal(self) -> RehearsalReport:
        """Make live what was rehearsed, in every worker or in none. Without that, it goes on."""
        async with self._workers.changing:
            model, rehearsal = self._model, self._found()
            changes = rehearsal.changes
            changes.require_no_conflict(self._in_force(), model.access)
            new = model.changed(self._in_force(), changes.options)
            given: dict[str, Any] = dict(changes.options)
            if changes.rules:
                behind = new.access_list()
                rules = AccessList((*changes.rules, *behind.rules), default=behind.default)
                new, given["access_rules"] = replace(new, access_rules=rules), rules
            last = await self._look_at(rehearsal)
            plan = await self._change_options(new, lambda control: control.set_options(**given))
            made = tuple(each for each in plan.changes if each.name != "access_rules" or changes.replaces_rules)
            return await self._end(rehearsal, "committed", last, made)

    async def cancel_rehearsal(self) -> RehearsalReport:
        """End a rehearsal in every worker, forget it, and return its last report."""
        async with self._workers.changing:
            rehearsal = self._found()
            return await self._end(rehearsal, "cancelled", await self._look_at(rehearsal))

    def _found(self) -> SharedRehearsal:
        if (rehearsal := self._model.rehearsal) is None:
            raise RehearsalConflict(f"listener {self._model.name} has no rehearsal")
        return rehearsal

    async def _end(
        self,
        rehearsal: SharedRehearsal,
        state: RehearsalState,
        last: RehearsalReport,
        made: tuple[OptionChange, ...] | None = None,
    ) -> RehearsalReport:
        model = self._model
        model.rehearsal = None
        model.version += 1
        rehearsal.end(state)
        for process in self._workers.live():
            process.rehearsals.pop(model.number, None)
        await self._ask(_forget)  # one that does not answer hears of it when the next one begins
        return replace(last, state=state, changes=last.changes if made is None else made)

    async def _look_at(self, rehearsal: SharedRehearsal) -> RehearsalReport:
        """The report of now, or that of its end."""
        if rehearsal.last is not None:
            return rehearsal.last
        rehearsal.look_at_time()
        number = self._model.number

        async def look(part: WorkerRehearsal, control: ListenerControl) -> None:
            with anyio.move_on_after(ASK_S), suppress(EsockdError):  # it has just ended
                part.report = await control.get_rehearsal()

        parts = self._parts(rehearsal)
        async with anyio.create_task_group() as task_group:
            for process, part in parts:
                if process.state != "slow" and (control := process.control(number)) is not None:
                    task_group.start_soon(look, part, control)
        live = self._workers.live()
        parts = [(process, part) for process, part in parts if process in live]  # what others told is kept
        for process, part in parts:
            told = part.report
            if told is not None and told.state == "over" and not process.was_retired and rehearsal.state == "running":
                rehearsal.end("over", f"{process}: {told.reason}")
        return rehearsal.report(part.report for _, part in parts)

    def _parts(self, rehearsal: SharedRehearsal) -> list[tuple[WorkerProcess, WorkerRehearsal]]:
        """The parts of the processes that take part in it."""
        return [
            (process, part)
            for process in self._workers.live()
            if (part := process.rehearsals.get(self._model.number)) is not None and part.whole is rehearsal
        ]

    def _rehearse_on(self) -> None:
        """End a rehearsal that does not fit the options in force any more."""
        rehearsal = self._model.rehearsal
        if rehearsal is not None and rehearsal.is_running:
            try:
                self._model.changed(self._in_force(), rehearsal.changes.options)
            except InvalidOption as error:
                rehearsal.end("over", f"the options were changed, and it does not fit any more: {error}")

    @abstractmethod
    def _in_force(self) -> ListenerOptions: ...

    @abstractmethod
    async def _change_options(self, new: ListenerOptions, change: Change) -> OptionPlan: ...


async def _forget(control: ListenerControl) -> None:
    with suppress(RehearsalConflict):
        await control.cancel_rehearsal()
