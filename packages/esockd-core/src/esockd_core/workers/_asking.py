"""Asking and telling the workers of one listener."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import anyio

from esockd_core._errors import EsockdError, ListenerClosed
from esockd_core._remote.errors import ControlError, InstanceUnreachable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from esockd_core.control.interface import ListenerControl
    from esockd_core.workers._model import Model
    from esockd_core.workers._process import WorkerProcess

logger = logging.getLogger("esockd_core")

ASK_S: Final = 1.0  # for a worker to answer; one that is busy longer is left out, or counts as it last told
CHANGE_S: Final = 5.0  # for a worker to make a change, and for all of them to take it back


Change: TypeAlias = "Callable[[ListenerControl], Awaitable[Any]]"
"""A change that one worker makes."""


class Crew(Protocol):
    """The workers; see `Workers`."""

    changing: anyio.Lock

    def live(self) -> list[WorkerProcess]:
        """The processes that serve connections, in the order in which they were started."""
        ...

    def replace_soon(self, process: WorkerProcess) -> None:
        """Let another process take the place of one, which finishes its connections."""

    def listener_closed(self) -> None:
        """A listener has no connections any more."""

    def listener_closes(self) -> None:
        """A listener takes no clients any more."""


class Asking:
    """Speaks to the parts of one listener in all workers.

    Args:
        model: What is known of the listener.
        crew: The workers.
    """

    def __init__(self, model: Model, crew: Crew) -> None:
        self._model = model
        self._crew = crew

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._model.name!r} on {self._model.address}: {self._model.state}>"

    async def _ask(self, question: Callable[[ListenerControl], Awaitable[Any]]) -> list[Any]:
        """The answers of the workers that answer, in the order in which these were started."""
        answers: dict[int, Any] = {}

        async def ask(process: WorkerProcess, control: ListenerControl) -> None:
            with anyio.move_on_after(ASK_S):
                with suppress(InstanceUnreachable):  # it has just ended
                    answers[process.generation] = await question(control)

        async with anyio.create_task_group() as task_group:
            for process in self._crew.live():
                if (control := process.control(self._model.number)) is not None:
                    task_group.start_soon(ask, process, control)
        return [answers[generation] for generation in sorted(answers)]

    async def _tell(self, change: Change, undo: Change | None) -> list[WorkerProcess]:
        """Let every worker make a change, or none. Call it with the lock.

        Args:
            change: Makes it.
            undo: Takes it back where it was made; None if only another process in its place can.

        Returns:
            The processes that have made it. Those that take no clients any more may not have.

        Raises:
            EsockdError: If a worker refuses.
        """
        changed: list[WorkerProcess] = []
        # One that is known to be slow is the first, so that no client meets a change that it does not make.
        for process in sorted(self._crew.live(), key=lambda each: each.state != "slow"):
            control = process.control(self._model.number)
            if control is None:
                continue
            try:
                with anyio.fail_after(CHANGE_S):
                    await change(control)
            except InstanceUnreachable:
                continue  # it has ended, and the next one knows the change
            except BaseException as error:
                is_refusal = isinstance(error, EsockdError)
                if process.was_retired and (is_refusal or isinstance(error, TimeoutError)):
                    continue  # it takes no clients any more
                self._model.version += 1  # a process that is being started may have heard of it
                if not is_refusal:
                    self._crew.replace_soon(process)  # it may make the change yet
                await self._take_back(undo, changed)
                if isinstance(error, TimeoutError):
                    raise ControlError(f"{process} does not answer: nothing was changed", code="busy") from error
                raise
            changed.append(process)
        return changed

    async def _take_back(self, undo: Change | None, changed: list[WorkerProcess]) -> None:
        """Let workers take a change back, all at once.

        One that does not, for whatever reason, is replaced by a process that never heard of it.
        """
        left = set(changed)

        async def take_back(process: WorkerProcess, undo: Change, control: ListenerControl) -> None:
            try:
                await undo(control)
                left.remove(process)
            except EsockdError:
                pass
            except Exception:
                logger.exception("%s cannot take a change back", process)

        with anyio.move_on_after(CHANGE_S, shield=True):
            async with anyio.create_task_group() as task_group:
                for process in changed:
                    control = process.control(self._model.number)
                    if undo is not None and control is not None:
                        task_group.start_soon(take_back, process, undo, control)
        for process in changed:
            if process in left:
                self._crew.replace_soon(process)

    def _require_open(self) -> None:
        if self._model.state not in ("running", "suspended"):
            raise ListenerClosed(f"listener {self._model.name} is {self._model.state}: open a new one")
