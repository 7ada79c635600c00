"""The parent of worker processes: it opens the sockets, and opens, changes and closes listeners in every worker."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import anyio

from esockd_core._errors import EsockdError, ListenerClosed
from esockd_core._listening.shelter import sheltered_task_group
from esockd_core.control.instance import ListenerSnapshot, WorkerStatus
from esockd_core.workers._changing import ChangeRefused
from esockd_core.workers._listeners import Listeners
from esockd_core.workers._processes import Processes

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Sequence
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from anyio.abc import TaskGroup

    from esockd_core._options.changes import OptionPlan
    from esockd_core.workers._changing import PendingChange
    from esockd_core.workers._control import SharedControl
    from esockd_core.workers._model import WorkerListener
    from esockd_core.workers._process import WorkerProcess
    from esockd_core.workers._processes import Settings


class Supervisor:
    """Runs the workers; see `Workers`.

    Args:
        listeners: The listeners.
        settings: How the workers are run.

    Attributes:
        changing: Held while something is changed everywhere.
        import_timeout_s: The most seconds that a worker may take to import a handler.
    """

    def __init__(self, listeners: Sequence[WorkerListener], settings: Settings) -> None:
        self._given = tuple(listeners)
        self._settings = settings
        self._listeners = Listeners(settings.count, self)
        self._processes = Processes(settings, self._listeners)
        self.changing: anyio.Lock = self._processes.changing
        self.import_timeout_s: float = settings.start_timeout_s
        self._closed = anyio.Event()
        self._restarting = anyio.Lock()
        self._stays = 0
        self._has_closed = False
        self._is_stopping = False
        self._was_started = False
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
        if self._was_started:
            raise RuntimeError("these workers are running already: make others")
        self._was_started = True
        with ExitStack() as stack:
            for model in [self._listeners.make(each) for each in self._given]:
                stack.callback(model.close_sockets)
                await model.open()
                model.state = "suspended" if self._settings.suspended else "running"
            shelter = sheltered_task_group()
            self._task_group = await shelter.__aenter__()
            try:
                await self._processes.start(self._task_group)
                for model in self._listeners:
                    model.opened_at = time.time()
                    await self._listeners.control(model).note_handler()
            except BaseException as error:
                self._processes.kill()
                await shelter.__aexit__(type(error), error, error.__traceback__)
                raise
            stack.pop_all()
        self._shelter = shelter

    async def stop(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        shelter, self._shelter = self._shelter, None
        if shelter is None:
            return None
        self._is_stopping = True
        for control in self.listeners():
            self.start_soon(control.close)
        self._look_for_the_end()
        try:
            return await shelter.__aexit__(exc_type, exc, traceback)
        finally:
            self._task_group = None

    def start_soon(self, work: Callable[..., Coroutine[Any, Any, object]], *arguments: object) -> None:
        """Do some work for as long as the workers run."""
        if self._task_group is None:
            raise ListenerClosed("the workers do not run")
        self._task_group.start_soon(work, *arguments)

    # Listeners

    async def open(self, given: WorkerListener, *, suspended: bool) -> SharedControl:
        """Open another listener in every worker, or in none."""
        self._require_running()
        await self._processes.wait_for_one(self.import_timeout_s)  # without the lock, which one that starts needs
        async with self.changing:
            self._require_running()
            model = self._listeners.make(given)
            control = self._listeners.control(model)
            try:
                await model.open()
                model.memory.whole.use_slot(self._processes.use_slots() - 1)
                begun = await control.begin("suspended" if suspended else "running")
            except BaseException:
                model.give_up_sockets()
                self._listeners.remove(model.number)
                if self._has_closed or self._is_stopping:
                    self._look_for_the_end()
                raise
            model.version += 1
            model.opened_at = time.time()
            self._processes.steer()
            if not suspended:
                with self._finishing(control):
                    await control.let_accept(begun)
        with self._finishing(control):
            await control.note_handler()
        if self._is_stopping:
            self.start_soon(control.close)
            raise ListenerClosed("the workers end: the listener is closed again")
        return control

    @contextmanager
    def _finishing(self, control: SharedControl) -> Iterator[None]:
        """Finish a block although it is cancelled: every worker has the listener, so the caller gets its control.

        `Task.cancel` of asyncio stops at no shield. Then nobody gets the control, so the listener is closed by it.
        """
        try:
            with anyio.CancelScope(shield=True):
                yield
        except BaseException:
            with suppress(ListenerClosed):  # the workers have ended
                self.start_soon(control.close)
            raise

    async def change(self, listeners: Sequence[WorkerListener]) -> tuple[OptionPlan, ...]:
        """Give open listeners other handlers and options: all of them in every worker, or nothing."""
        made: list[tuple[SharedControl, PendingChange]] = []
        async with self.changing, AsyncExitStack() as undo:
            for each, control in zip(listeners, self._listeners.find_each(listeners), strict=True):
                try:
                    change = await control.become(each)
                except EsockdError as error:
                    raise ChangeRefused(each, error) from error
                undo.push_async_callback(control.take_back, change)
                made.append((control, change))
            for each, (control, change) in zip(listeners, made, strict=True):
                try:
                    await control.put_rates(change)
                except EsockdError as error:
                    raise ChangeRefused(each, error) from error
            undo.pop_all()
            for control, change in made:
                control.settle(change)
        for control, change in made:
            if change.handler is not None:
                await control.note_handler()
        return tuple(change.plan for _, change in made)

    def _require_running(self) -> None:
        if self._shelter is None or self._processes.closing.is_set():
            raise ListenerClosed("the workers do not run, or end: no listener is opened any more")

    @contextmanager
    def staying(self) -> Iterator[None]:
        """Let the workers stay for the duration of a block, although no listener may be open."""
        self._stays += 1
        try:
            yield
        finally:
            self._stays -= 1
            if self._has_closed:
                self._look_for_the_end()

    async def wait_closed(self) -> None:
        """Return when the last listener is closed and its connections have ended."""
        await self._closed.wait()

    def listener_closes(self) -> None:
        """A listener takes no clients any more."""
        self._has_closed = True
        self._look_for_the_end()

    def listener_closed(self, number: int) -> None:
        """A listener, by its number, has no connections any more."""
        self._listeners.remove(number)
        self._look_for_the_end()

    def _look_for_the_end(self) -> None:
        """Without a listener that takes clients, no worker is started; without any listener, all workers end."""
        if self._stays and not self._is_stopping:
            return
        if all(model.state == "draining" for model in self._listeners):
            self._processes.close()
        if not [*self._listeners]:
            self._closed.set()
            self._processes.dismiss()

    # Looking

    def listeners(self) -> tuple[SharedControl, ...]:
        """The open listeners, in the order in which they were opened."""
        return self._listeners.controls()

    def workers(self) -> tuple[WorkerStatus, ...]:
        """The worker processes, those that retire included, in the order of their numbers."""
        found = [self._describe(process) for process in self.live()]
        return tuple(sorted(found, key=lambda each: each.number))

    def _describe(self, process: WorkerProcess) -> WorkerStatus:
        known = process.instance
        return WorkerStatus(
            number=process.share,
            pid=process.pid,
            state=process.state,
            replaced=self._processes.shares[process.share].replaced,
            uptime=max(0.0, anyio.current_time() - process.started_at),
            listeners=tuple(
                ListenerSnapshot(status=model.status(), stats=process.stats[model.number])
                for model in self._listeners
                if model.number in process.stats
            ),
            open_files=None if known is None else known.open_files,
            memory_bytes=None if known is None else known.memory_bytes,
            cpu_time=0.0 if known is None else known.cpu_time,
        )

    def live(self) -> list[WorkerProcess]:
        """The processes that serve connections, in the order in which they were started."""
        return self._processes.live()

    def serving(self, number: int) -> list[WorkerProcess]:
        """The processes that have a part of a listener, by its number, or will have once they accept."""
        return self._processes.serving(number)

    # Replacing

    async def restart(self) -> None:
        """Replace the workers one after the other, so that they run the code that is installed now.

        Each takes over once it accepts, on the sockets of the one before, which then finishes its connections.

        Raises:
            EsockdError: If one cannot start. The old one of its number goes on, and those after it are not replaced.
            ListenerClosed: If the listeners close meanwhile.
        """
        async with self._restarting:
            for share in self._processes.shares:
                await share.replace()

    def replace_soon(self, process: WorkerProcess) -> None:
        """Let another process take the place of one, which finishes its connections."""
        self._processes.replace_soon(process)
