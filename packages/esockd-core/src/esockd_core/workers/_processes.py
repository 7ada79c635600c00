"""The worker processes of a program: started, watched, steered to, and replaced."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio

from esockd_core._errors import EsockdError, ListenerClosed
from esockd_core._platform.child_processes import available_processors
from esockd_core._remote.errors import ControlError
from esockd_core.workers._memory import SLOTS
from esockd_core.workers._orders import Order
from esockd_core.workers._process import ANSWER_S, WorkerProcess
from esockd_core.workers._share import Share, wait_for_any
from esockd_core.workers._shared_rehearsal import WorkerRehearsal

if TYPE_CHECKING:
    from anyio.abc import TaskGroup, TaskStatus

    from esockd_core.workers._listeners import Listeners

logger = logging.getLogger("esockd_core")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How workers are run; see `Workers`."""

    count: int
    backend: str
    backend_options: dict[str, Any]
    setup: str | None
    setup_arguments: tuple[Any, ...]
    pin: bool
    suspended: bool
    start_timeout_s: float
    stuck_timeout_s: float | None


class Processes:
    """Keeps a number of worker processes.

    Args:
        settings: How they are run.
        listeners: What they serve.

    Attributes:
        changing: Held while something is changed everywhere.
        closing: Set when no listener takes clients any more.
        shares: The shares of the sockets, each with the process that serves it.
    """

    def __init__(self, settings: Settings, listeners: Listeners) -> None:
        self._settings = settings
        self._listeners = listeners
        self.changing = anyio.Lock()
        self.closing = anyio.Event()
        self.shares = [Share(number, self) for number in range(settings.count)]
        self._has_begun = anyio.Event()
        self._generation = 0
        self._all: list[WorkerProcess] = []
        self._task_group: TaskGroup | None = None

    # Looking

    def live(self) -> list[WorkerProcess]:
        """The processes that serve connections, in the order in which they were started."""
        return [process for process in self._all if process.is_live]

    def serving(self, number: int) -> list[WorkerProcess]:
        """The processes that have a part of a listener, by its number, or will have once they accept."""
        return [process for process in self._all if process.has(number)]

    # Starting

    async def start(self, task_group: TaskGroup) -> None:
        """Return when a process of each share accepts.

        Args:
            task_group: Runs them.

        Raises:
            EsockdError: If one cannot start; the error says why.
        """
        self._task_group = task_group
        first: list[EsockdError] = []

        async def start(share: Share) -> None:
            await task_group.start(self._keep, share, first)
            if first:
                starting.cancel_scope.cancel()

        async with anyio.create_task_group() as starting:
            for share in self.shares:
                starting.start_soon(start, share)
        if first:
            raise first[0]

    async def _keep(self, share: Share, failures: list[EsockdError], *, task_status: TaskStatus[None]) -> None:
        """Run a share; one that cannot start at all says so once."""
        try:
            await share.run(task_status=task_status)
        except EsockdError as error:
            failures.append(error)
            task_status.started()

    async def start_process(self, share: int) -> WorkerProcess:
        """Start a process for a share, and return when it accepts.

        Raises:
            EsockdError: If it cannot start.
            ListenerClosed: If the listeners close meanwhile.
        """
        version = self._listeners.version
        process = await self._start(share)
        async with self.changing:  # no other change now, but a listener may begin to close
            while self._listeners.version != version:
                await process.retire()  # it has missed a change, but may have taken clients
                version = self._listeners.version
                process = await self._start(share)
            return process

    async def _start(self, share: int) -> WorkerProcess:
        if self.closing.is_set() or self._task_group is None:
            raise ListenerClosed("the listeners are closing: no worker is started any more")
        self._generation += 1
        process = WorkerProcess(share, self._generation, self._free_slot())
        self._all.append(process)
        models = [model for model in self._listeners if model.state in ("running", "suspended")]
        for model in self._listeners:
            model.memory.whole.use_slot(process.slot)
        settings, processors = self._settings, available_processors()
        order = Order(
            parent=os.getpid(),
            number=share,
            slot=process.slot,
            first_id=process.first_id,
            worker_count=settings.count,
            listeners=tuple(model.order(share) for model in models),
            backend=settings.backend,
            backend_options=settings.backend_options,
            setup=settings.setup,
            setup_arguments=settings.setup_arguments,
            processors=(processors[share % len(processors)],) if settings.pin else (),
        )
        rehearsals = {
            model.number: model.rehearsal
            for model, each in zip(models, order.listeners, strict=True)
            if model.rehearsal is not None and each.rehearsal is not None
        }
        descriptors = {descriptor for each in order.listeners for descriptor in (each.memory, *each.descriptors)}
        try:
            await process.start(order, descriptors, settings.start_timeout_s)
        except BaseException:
            self._note_end(process)
            raise
        for number, rehearsal in rehearsals.items():
            process.rehearsals[number] = WorkerRehearsal(rehearsal)
            rehearsal.begun_again += 1
        self._task_group.start_soon(self._watch, process)
        self._has_begun.set()
        self._has_begun = anyio.Event()
        if self.closing.is_set():
            await process.retire()
            raise ListenerClosed("the listeners are closing: no worker is started any more")
        return process

    async def wait_for_one(self, for_s: float) -> None:
        """Return once a process can open listeners, after this number of seconds, or if none is started any more."""
        with anyio.move_on_after(for_s):
            while not (self.closing.is_set() or any(process.can_open for process in self._all)):
                await wait_for_any(self._has_begun, self.closing)

    def _free_slot(self) -> int:
        taken = {process.slot for process in self._all}
        free = next((slot for slot in range(SLOTS) if slot not in taken), None)
        if free is None:
            raise ControlError(f"{SLOTS} worker processes run already, most of them retiring", code="busy")
        return free

    def use_slots(self) -> int:
        """The number of slots that are, or may have been, in use."""
        return max((process.slot + 1 for process in self._all), default=0)

    # Watching

    async def _watch(self, process: WorkerProcess) -> None:
        try:
            await process.watch(self._settings.stuck_timeout_s, self.steer, lambda: self._is_culprit(process))
        finally:
            self._note_end(process)
        if not self.closing.is_set() and not process.was_retired:
            logger.error("%s ended with status %s", process, process.status)

    def _note_end(self, process: WorkerProcess) -> None:
        for model in self._listeners:
            model.note_end(process)
        self._all.remove(process)
        self.steer()

    async def _is_culprit(self, process: WorkerProcess) -> bool:
        """Whether it is this process that does not answer, and not one that has the lock which all wait for.

        One that has it for longer than a moment has stopped, and is killed.
        """
        for model in self._listeners:
            holder = model.memory.lock.holder()
            for other in tuple(self._all):
                if other is process or other.pid != holder or await other.answers(ANSWER_S):
                    continue
                if model.memory.lock.holder() == other.pid:
                    logger.error("%s has stopped while it judged a client: it is killed", other)
                    other.kill()
                    return False
        return True

    def steer(self) -> None:
        """Let new clients go to the workers that answer."""
        ready = [
            share.number for share in self.shares if share.current is not None and share.current.state == "running"
        ]
        for model in self._listeners:
            if model.sockets is not None:
                with suppress(OSError):  # it is an improvement, and no more
                    model.sockets.steer(ready)

    # Replacing and ending

    def replace_soon(self, process: WorkerProcess) -> None:
        """Let another process take the place of one, which finishes its connections."""
        share = self.shares[process.share]
        if share.current is process:
            share.replace_unfit()

    def close(self) -> None:
        """Start no process any more."""
        self.closing.set()
        for process in self._all:
            if process.state == "starting":
                process.kill()

    def dismiss(self) -> None:
        """Let all processes end, because they have no listener any more."""
        for process in self.live():
            process.dismiss()

    def kill(self) -> None:
        """End all processes at once."""
        self.closing.set()
        for process in self._all:
            process.kill()
