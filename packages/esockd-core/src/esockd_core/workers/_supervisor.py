"""The parent of worker processes: it opens the sockets, keeps a number of workers, and replaces them."""

from __future__ import annotations

import logging
import os
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio

from esockd_core._errors import AlreadyOpen, EsockdError, ListenerClosed
from esockd_core._listening.shelter import sheltered_task_group
from esockd_core._platform.child_processes import available_processors
from esockd_core._remote.errors import ControlError
from esockd_core.control.instance import ListenerSnapshot, WorkerStatus
from esockd_core.workers._control import SharedControl
from esockd_core.workers._memory import SLOTS, SharedMemory
from esockd_core.workers._model import Model
from esockd_core.workers._orders import Order
from esockd_core.workers._process import ANSWER_S, WorkerProcess
from esockd_core.workers._share import Share
from esockd_core.workers._shared_rehearsal import WorkerRehearsal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from anyio.abc import TaskGroup, TaskStatus

    from esockd_core.workers._model import WorkerListener

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


class Supervisor:
    """Runs the workers; see `Workers`.

    Args:
        listeners: The listeners.
        settings: How the workers are run.

    Attributes:
        changing: Held while something is changed everywhere.
        closing: Set when no listener takes clients any more.
    """

    def __init__(self, listeners: Sequence[WorkerListener], settings: Settings) -> None:
        self._given = tuple(listeners)
        self._settings = settings
        self.changing = anyio.Lock()
        self.closing = anyio.Event()
        self._closed = anyio.Event()
        self._restarting = anyio.Lock()
        self._generation = 0
        self._processes: list[WorkerProcess] = []
        self._memory: SharedMemory | None = None
        self._models: list[Model] = []
        self._controls: list[SharedControl] = []
        self._shares = [Share(number, self) for number in range(settings.count)]
        self._shelter: AbstractAsyncContextManager[TaskGroup] | None = None
        self._task_group: TaskGroup | None = None

    # Life

    async def start(self) -> None:
        """Open the addresses, and return when every worker accepts.

        Raises:
            AddressInUse: If somebody else listens there.
            CannotBind: If an address cannot be opened.
            EsockdError: If a worker cannot start; the error says why.
        """
        if self._memory is not None:
            raise RuntimeError("these workers are running already: make others")
        with ExitStack() as stack:
            await self._open(stack)
            shelter = sheltered_task_group()
            self._task_group = await shelter.__aenter__()
            try:
                await self._start_all()
            except BaseException as error:
                self.closing.set()
                for process in self._processes:
                    process.kill()
                await shelter.__aexit__(type(error), error, error.__traceback__)
                raise
            stack.pop_all()
        self._shelter = shelter

    async def _open(self, stack: ExitStack) -> None:
        self._memory = SharedMemory.create(len(self._given))
        stack.callback(self._memory.close)
        for number, each in enumerate(self._given):
            model = Model(each, number, self._settings.count, self._memory.of_listener(number))
            if any((model.name, str(model.address)) == (other.name, str(other.address)) for other in self._models):
                raise AlreadyOpen(f"listener {model.name} on {model.address} is given twice")
            self._models.append(model)
        for model in self._models:
            stack.callback(model.close)
            await model.open()
            model.state = "suspended" if self._settings.suspended else "running"
            self._controls.append(SharedControl(model, self))

    async def _start_all(self) -> None:
        first: list[EsockdError] = []
        if self._task_group is None:
            raise AssertionError("there is nowhere to run")

        async def start(share: Share) -> None:
            if self._task_group is not None:
                await self._task_group.start(self._keep, share, first)
            if first:
                starting.cancel_scope.cancel()

        async with anyio.create_task_group() as starting:
            for share in self._shares:
                starting.start_soon(start, share)
        if first:
            raise first[0]
        for model in self._models:
            model.opened_at = time.time()
            for process in self.live():
                if (control := process.control(model.number)) is not None:
                    model.handler_path = (await control.get_status()).handler
                    break

    async def _keep(self, share: Share, failures: list[EsockdError], *, task_status: TaskStatus[None]) -> None:
        """Run a share; one that cannot start at all says so once."""
        try:
            await share.run(task_status=task_status)
        except EsockdError as error:
            failures.append(error)
            task_status.started()

    async def stop(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        shelter, self._shelter = self._shelter, None
        if shelter is None or self._task_group is None or self._memory is None:
            return None
        for control in self._controls:
            self._task_group.start_soon(control.close)
        try:
            return await shelter.__aexit__(exc_type, exc, traceback)
        finally:
            self._memory.close()

    async def wait_closed(self) -> None:
        """Return when the last listener is closed and its connections have ended."""
        await self._closed.wait()

    def listener_closes(self) -> None:
        """A listener takes no clients any more: without another one, no worker is started either."""
        if all(model.state in ("draining", "closed") for model in self._models):
            self.closing.set()
            for process in self._processes:
                if process.state == "starting":
                    process.kill()

    def listener_closed(self) -> None:
        """A listener has no connections any more."""
        if all(model.state == "closed" for model in self._models):
            self._closed.set()

    # Looking

    def listeners(self) -> tuple[SharedControl, ...]:
        """The open listeners, in the order in which they were given."""
        return tuple(
            control for control, model in zip(self._controls, self._models, strict=True) if model.state != "closed"
        )

    def workers(self) -> tuple[WorkerStatus, ...]:
        """The worker processes, those that retire included, in the order of their numbers."""
        found = [self._describe(process) for process in self._processes if process.is_live]
        return tuple(sorted(found, key=lambda each: each.number))

    def _describe(self, process: WorkerProcess) -> WorkerStatus:
        known = process.instance
        return WorkerStatus(
            number=process.share,
            pid=process.pid,
            state=process.state,
            replaced=self._shares[process.share].replaced,
            uptime=max(0.0, anyio.current_time() - process.started_at),
            listeners=tuple(
                ListenerSnapshot(status=model.status(), stats=process.stats[model.number])
                for model in self._models
                if model.number in process.stats
            ),
            open_files=None if known is None else known.open_files,
            memory_bytes=None if known is None else known.memory_bytes,
            cpu_time=0.0 if known is None else known.cpu_time,
        )

    def live(self) -> list[WorkerProcess]:
        """The processes that serve connections, in the order in which they were started."""
        return [process for process in self._processes if process.is_live]

    # Replacing

    async def restart(self) -> None:
        """Replace the workers one after the other, so that they run the code that is installed now.

        Each takes over once it accepts, on the sockets of the one before, which then finishes its connections.

        Raises:
            EsockdError: If one cannot start. The old one of its number goes on, and those after it are not replaced.
            ListenerClosed: If the listeners close meanwhile.
        """
        async with self._restarting:
            for share in self._shares:
                await share.replace()

    def replace_soon(self, process: WorkerProcess) -> None:
        """Let another process take the place of one, which finishes its connections."""
        share = self._shares[process.share]
        if share.current is process:
            share.replace_unfit()

    async def start_process(self, share: int) -> WorkerProcess:
        """Start a process for a share, and return when it accepts.

        Raises:
            EsockdError: If it cannot start.
            ListenerClosed: If the listeners close meanwhile.
        """
        version = self._version()
        process = await self._start(share)
        async with self.changing:  # no other change now, but a listener may begin to close
            while self._version() != version:
                await process.retire()  # it has missed a change, but may have taken clients
                version = self._version()
                process = await self._start(share)
            return process

    def _version(self) -> int:
        return sum(model.version for model in self._models)

    async def _start(self, share: int) -> WorkerProcess:
        if self.closing.is_set() or self._memory is None:
            raise ListenerClosed("the listeners are closing: no worker is started any more")
        self._generation += 1
        slot = self._free_slot()
        process = WorkerProcess(share, self._generation, slot)
        self._processes.append(process)
        self._memory.use_slot(slot)
        models = [model for model in self._models if model.state in ("running", "suspended")]
        processors = available_processors()
        order = Order(
            parent=os.getpid(),
            number=share,
            slot=slot,
            first_id=process.first_id,
            processes=self._settings.count,
            memory=self._memory.descriptor,
            listeners=tuple(model.order(share) for model in models),
            backend=self._settings.backend,
            backend_options=self._settings.backend_options,
            setup=self._settings.setup,
            setup_arguments=self._settings.setup_arguments,
            processors=(processors[share % len(processors)],) if self._settings.pin else (),
        )
        rehearsals = {
            model.number: model.rehearsal
            for model, each in zip(models, order.listeners, strict=True)
            if model.rehearsal is not None and each.rehearsal is not None
        }
        descriptors = {descriptor for each in order.listeners for descriptor in each.descriptors}
        try:
            await process.start(order, (self._memory.descriptor, *descriptors), self._settings.start_timeout_s)
        except BaseException:
            self._note_end(process)
            raise
        for number, rehearsal in rehearsals.items():
            process.rehearsals[number] = WorkerRehearsal(rehearsal)
            rehearsal.begun_again += 1
        if self._task_group is not None:
            self._task_group.start_soon(self._watch, process)
        if self.closing.is_set():
            await process.retire()
            raise ListenerClosed("the listeners are closing: no worker is started any more")
        return process

    def _free_slot(self) -> int:
        taken = {process.slot for process in self._processes}
        free = next((slot for slot in range(SLOTS) if slot not in taken), None)
        if free is None:
            raise ControlError(f"{SLOTS} worker processes run already, most of them retiring", code="busy")
        return free

    async def _watch(self, process: WorkerProcess) -> None:
        try:
            await process.watch(self._settings.stuck_timeout_s, self.steer, lambda: self._is_culprit(process))
        finally:
            self._note_end(process)
        if not self.closing.is_set() and not process.was_retired:
            logger.error("%s ended with status %s", process, process.status)

    def _note_end(self, process: WorkerProcess) -> None:
        for model in self._models:
            model.note_end(process)
        self._processes.remove(process)
        self.steer()

    async def _is_culprit(self, process: WorkerProcess) -> bool:
        """Whether it is this process that does not answer, and not one that has the lock which all wait for.

        One that has it for longer than a moment has stopped, and is killed.
        """
        for model in self._models:
            holder = model.memory.lock.holder()
            for other in tuple(self._processes):
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
            share.number for share in self._shares if share.current is not None and share.current.state == "running"
        ]
        for model in self._models:
            if model.sockets is not None:
                with suppress(OSError):  # it is an improvement, and no more
                    model.sockets.steer(ready)
