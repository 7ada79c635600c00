"""One share of the sockets of a program, and the worker processes that serve it one after the other."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, Protocol

import anyio

from esockd_core._errors import EsockdError, ListenerClosed

if TYPE_CHECKING:
    from anyio.abc import TaskStatus

    from esockd_core.workers._process import WorkerProcess

logger = logging.getLogger("esockd_core")

PAUSE_FIRST_S: Final = 0.1
PAUSE_LAST_S: Final = 10.0
PROVEN_S: Final = 10.0  # a worker that lived that long starts the pauses from the beginning


class Starter(Protocol):
    """Starts processes; see `Workers`."""

    closing: anyio.Event

    async def start_process(self, share: int) -> WorkerProcess:
        """Start a process for a share, and return when it accepts.

        Raises:
            EsockdError: If it cannot start.
        """
        ...

    def steer(self) -> None:
        """Let new clients go to the workers that answer."""


class _Replacement:
    """Somebody waits for another process.

    Attributes:
        done: Set when it has taken over, or cannot.
        error: Why it cannot.
    """

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.error: EsockdError | None = None

    def finish(self, error: EsockdError | None = None) -> None:
        self.error = error
        self.done.set()


class Share:
    """Keeps a process for one share: it replaces one that has ended, and one that is to be replaced.

    Args:
        number: Its number, from 0.
        starter: Starts processes.

    Attributes:
        current: The process that accepts; None before the first.
        replaced: How often it was replaced.
    """

    def __init__(self, number: int, starter: Starter) -> None:
        self.number = number
        self.current: WorkerProcess | None = None
        self.replaced = 0
        self._starter = starter
        self._wanted: _Replacement | None = None
        self._is_unfit = False  # the process serves what it must not, until it is replaced
        self._news = anyio.Event()
        self._last_failure = ""

    def want_replacement(self) -> _Replacement:
        """Ask for another process, which takes over when it accepts."""
        if self._wanted is None:
            self._wanted = _Replacement()
            self._news.set()
        return self._wanted

    def replace_unfit(self) -> None:
        """Replace the process as soon as that can be done, however often it cannot."""
        self._is_unfit = True
        self._news.set()

    async def replace(self) -> None:
        """Replace the process by another one. The old one finishes its connections.

        Raises:
            EsockdError: If the new one cannot start. The old one goes on.
            ListenerClosed: If the program ends meanwhile.
        """
        replacement = self.want_replacement()
        await wait_for_any(replacement.done, self._starter.closing)
        if not replacement.done.is_set():
            raise ListenerClosed("the listeners are closing: no worker is replaced any more")
        if replacement.error is not None:
            raise replacement.error

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Keep a process until the program ends.

        Raises:
            EsockdError: If the first process cannot start.
        """
        pause_s = 0.0
        while not self._starter.closing.is_set():
            wanted, self._wanted = self._wanted, None
            was_unfit, self._is_unfit = self._is_unfit, False
            self._news = anyio.Event()
            try:
                process = await self._starter.start_process(self.number)
            except EsockdError as error:
                if self.current is None:
                    raise
                self._is_unfit = self._is_unfit or was_unfit
                self._tell_failure(error, wanted)
            else:
                is_first = self.current is None
                await self._take_over(process)
                if is_first:
                    task_status.started()
                if wanted is not None:
                    wanted.finish()
            if self._is_unfit:
                pause_s = self._next_pause(pause_s)
            with anyio.move_on_after(pause_s if self._is_unfit else None):
                if self.current is not None and not self.current.ended.is_set():
                    await wait_for_any(self.current.ended, self._news, self._starter.closing)
            if self.current is not None and self.current.ended.is_set():
                pause_s = self._next_pause(pause_s)
                with anyio.move_on_after(pause_s):
                    await self._starter.closing.wait()

    async def _take_over(self, process: WorkerProcess) -> None:
        old, self.current = self.current, process
        self._last_failure = ""
        self._is_unfit = False
        self._starter.steer()
        if old is not None:
            self.replaced += 1
            if not old.ended.is_set():
                await old.retire()

    def _tell_failure(self, error: EsockdError, wanted: _Replacement | None) -> None:
        if wanted is not None:
            wanted.finish(error)
        elif not self._starter.closing.is_set() and str(error) != self._last_failure:
            self._last_failure = str(error)
            logger.error("worker %d cannot be started again, and is tried until it can: %s", self.number, error)

    def _next_pause(self, pause_s: float) -> float:
        has_lived_s = 0.0 if self.current is None else anyio.current_time() - self.current.started_at
        if self._last_failure == "" and has_lived_s >= PROVEN_S:
            return PAUSE_FIRST_S
        return min(max(2 * pause_s, PAUSE_FIRST_S), PAUSE_LAST_S)


async def wait_for_any(*events: anyio.Event) -> None:
    """Return when one of the events is set."""
    async with anyio.create_task_group() as task_group:

        async def wait(event: anyio.Event) -> None:
            await event.wait()
            task_group.cancel_scope.cancel()

        for event in events:
            task_group.start_soon(wait, event)
