"""Asking and telling the workers of one listener."""

from __future__ import annotations

import logging
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import anyio

from esockd_core._errors import EsockdError, ListenerClosed
from esockd_core._remote.errors import ControlError, InstanceUnreachable
from esockd_core.workers._silence import answered

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from esockd_core.workers._model import Model
    from esockd_core.workers._part import WorkerPart
    from esockd_core.workers._process import WorkerProcess

logger = logging.getLogger("esockd_core")

ASK_S: Final = 1.0  # for a worker to answer; one that is busy longer is left out, or counts as it last told
CHANGE_S: Final = 5.0  # for a worker to make a change, or to take it back, of the time in which it can run


Change: TypeAlias = "Callable[[WorkerPart], Awaitable[Any]]"
"""A change that one worker makes."""


class WorkerSet(Protocol):
    """The workers; see `Workers`.

    Attributes:
        changing: Held while something is changed everywhere.
        import_timeout_s: The most seconds that a worker may take to import a handler.
    """

    changing: anyio.Lock
    import_timeout_s: float

    def live(self) -> list[WorkerProcess]:
        """The processes that serve connections, in the order in which they were started."""
        ...

    def serving(self, number: int) -> list[WorkerProcess]:
        """The processes that have a part of a listener, by its number, or will have once they accept."""
        ...

    def replace_soon(self, process: WorkerProcess) -> None:
        """Let another process take the place of one, which finishes its connections."""

    def start_soon(self, work: Callable[..., Coroutine[Any, Any, object]], *arguments: object) -> None:
        """Do some work for as long as the workers run."""

    def listener_closes(self) -> None:
        """A listener takes no clients any more."""

    def listener_closed(self, number: int) -> None:
        """A listener, by its number, has no connections any more."""


class Asking:
    """Speaks to the parts of one listener in all workers.

    Args:
        model: What is known of the listener.
        workers: The workers.
    """

    def __init__(self, model: Model, workers: WorkerSet) -> None:
        self._model = model
        self._workers = workers

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._model.name!r} on {self._model.address}: {self._model.state}>"

    async def _ask(self, question: Change) -> list[Any]:
        """The answers of the workers that answer, in the order in which these were started."""
        answers: dict[int, Any] = {}

        async def ask(process: WorkerProcess, control: WorkerPart) -> None:
            with anyio.move_on_after(ASK_S):
                with suppress(InstanceUnreachable):  # it has just ended
                    answers[process.generation] = await question(control)

        async with anyio.create_task_group() as task_group:
            for process in self._workers.live():
                if (control := process.control(self._model.number)) is not None:
                    task_group.start_soon(ask, process, control)
        return [answers[generation] for generation in sorted(answers)]

    async def _tell(self, change: Change, undo: Change | None, *, imports: bool = False) -> list[WorkerProcess]:
        """Let every worker make a change, or none. Call it with the lock.

        Args:
            change: Makes it.
            undo: Takes it back where it was made; None if only another process in its place can.
            imports: Whether it imports code, which takes its time, and may be why a worker ends.

        Returns:
            The processes that have made it. Those that take no clients any more may not have.

        Raises:
            EsockdError: If a worker refuses.
        """
        changed: list[WorkerProcess] = []

        async def make(process: WorkerProcess, control: WorkerPart) -> None:
            await change(control)
            changed.append(process)  # here already: a cancellation may come before the wait for the answer has ended

        # One that is known to be slow is the first, so that no client meets a change that it does not make.
        for process in sorted(self._workers.live(), key=lambda each: each.state != "slow"):
            control = process.control(self._model.number)
            if control is None:
                continue
            has_begun_to_import = False
            try:
                if imports:
                    await answered(process.pid, CHANGE_S, process.greet)  # one that hangs is not given time to import
                    has_begun_to_import = True
                    with process.importing(), anyio.fail_after(self._workers.import_timeout_s):
                        await make(process, control)
                else:
                    await answered(process.pid, CHANGE_S, partial(make, process, control))
            except BaseException as error:
                has_ended, is_refusal = isinstance(error, InstanceUnreachable), isinstance(error, EsockdError)
                if has_ended and (not has_begun_to_import or process.was_retired):
                    continue  # the next one knows the change
                if process.was_retired and (is_refusal or isinstance(error, TimeoutError)):
                    continue  # it takes no clients any more
                self._model.version += 1  # a process that is being started may have heard of it
                if not is_refusal and process not in changed:
                    self._workers.replace_soon(process)  # it may make the change yet
                await self._take_back(undo, changed)
                if isinstance(error, TimeoutError):
                    raise ControlError(f"{process} does not answer: nothing was changed", code="busy") from error
                if has_ended:
                    raise ControlError(f"{process} ended meanwhile: nothing was changed", code="worker_lost") from error
                raise
        if imports and not changed:  # or no worker could start any more, if it cannot be imported
            raise ControlError("no worker runs at the moment: nothing was changed", code="busy")
        return changed

    async def _take_back(self, undo: Change | None, changed: list[WorkerProcess]) -> None:
        """Let workers take a change back, all at once.

        One that does not, for whatever reason, is replaced by a process that never heard of it.
        """
        left = set(changed)

        async def take_back(process: WorkerProcess, undo: Change, control: WorkerPart) -> None:
            try:
                await answered(process.pid, CHANGE_S, lambda: undo(control))
                left.remove(process)
            except (EsockdError, TimeoutError):
                pass
            except Exception:
                logger.exception("%s cannot take a change back", process)

        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as task_group:
                for process in changed:
                    control = process.control(self._model.number)
                    if undo is not None and control is not None:
                        task_group.start_soon(take_back, process, undo, control)
        for process in changed:
            if process in left:
                self._workers.replace_soon(process)

    def _require_open(self) -> None:
        if self._model.state not in ("running", "suspended"):
            raise ListenerClosed(f"listener {self._model.name} is {self._model.state}: open a new one")
