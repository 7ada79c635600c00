"""The part of a listener's control that begins it in all workers, stops and resumes accepting, and ends it."""

from __future__ import annotations

import math
from collections import defaultdict
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal

import anyio

from esockd_core._errors import EsockdError, InvalidOption
from esockd_core._listening.closing import Closing
from esockd_core._listening.drain import Ending
from esockd_core._remote.errors import InstanceUnreachable
from esockd_core.control.interface import UNSET, Unset
from esockd_core.workers._asking import ASK_S, CHANGE_S
from esockd_core.workers._rehearsing import SharedRehearsing
from esockd_core.workers._silence import answered

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from esockd_core.workers._asking import Change, WorkerSet
    from esockd_core.workers._model import Model
    from esockd_core.workers._part import WorkerPart
    from esockd_core.workers._process import WorkerProcess

FORCE_AFTER_S: Final = 4.0  # beyond the time that handlers have: who blocks its event loop for so long is killed

NEW_SOCKETS: Final = "Close the listener, and open it again."

ACCEPTING: Final[Mapping[str, Change]] = {
    "running": lambda part: part.resume(),
    "suspended": lambda part: part.suspend(),
}


class Lifecycle(Closing, SharedRehearsing):
    """Takes a listener through its life, in every worker.

    Args:
        model: What is known of the listener.
        workers: The workers.
    """

    def __init__(self, model: Model, workers: WorkerSet) -> None:
        super().__init__(model, workers)
        self._ending = Ending(None)
        self._deaf = anyio.Event()
        self._closed = anyio.Event()

    async def begin(self, state: Literal["running", "suspended"]) -> list[WorkerProcess]:
        """Open the listener in every worker that runs, or in none. Its sockets are open; call it with the lock.

        Each opens it suspended, so that no client is served by a listener that another worker refuses.

        Args:
            state: How it begins; a worker that starts from now on accepts if that is "running".

        Returns:
            The processes that have opened it.

        Raises:
            EsockdError: If a worker refuses, or does not survive it.
        """
        model = self._model
        asked = [process for process in self._workers.live() if not process.was_retired]
        begun: list[WorkerProcess] = []
        for process in asked:
            process.add(model.order(process.share))
        try:
            begun = await self._tell(
                lambda part: part.begin(replace(model.order(part.share), is_suspended=True)),
                _withdraw,
                imports=True,
            )
        finally:
            for process in asked:
                if process not in begun:
                    process.remove(model.number)
        model.state = state
        return begun

    async def let_accept(self, processes: Sequence[WorkerProcess]) -> None:
        """Let workers accept that have begun. One that cannot is replaced by a process that does."""

        async def resume(process: WorkerProcess) -> None:
            part = process.control(self._model.number)
            with suppress(EsockdError, TimeoutError):
                if part is not None:
                    await answered(process.pid, CHANGE_S, part.resume)
                return
            if not process.was_retired:  # or it takes no clients any more
                self._workers.replace_soon(process)

        async with anyio.create_task_group() as task_group:
            for process in processes:
                task_group.start_soon(resume, process)

    async def note_handler(self) -> None:
        """Learn from a worker what its handler is called."""
        for process in self._workers.live():
            if (part := process.control(self._model.number)) is not None:
                with anyio.move_on_after(ASK_S), suppress(EsockdError):
                    self._model.handler_path = (await part.get_status()).handler
                    return

    async def suspend(self) -> None:
        """Stop accepting, in every worker."""
        await self._accept("suspended")

    async def resume(self) -> None:
        """Accept again."""
        await self._accept("running")

    async def _accept(self, state: Literal["running", "suspended"]) -> None:
        async with self._workers.changing:
            self._require_open()
            model = self._model
            await self._tell(ACCEPTING[state], ACCEPTING[model.state])
            model.state = state
            model.version += 1

    async def reopen(self, address: object = None) -> None:
        """Refuse: the sockets of workers are open as long as their listener, so that no queued client is lost.

        Raises:
            InvalidOption: Always.
        """
        reason = "workers keep the sockets of a listener as long as it is open"
        if address is None:
            raise InvalidOption(reason, option="listener", value=self._model.name, hint=NEW_SOCKETS)
        raise InvalidOption(reason, option="address", value=address, hint=NEW_SOCKETS)

    # The end

    async def drain(self, timeout: float | Unset | None = UNSET, rate: float | None = None) -> None:
        """Close the listener gracefully in every worker, and return when its last connection has ended."""
        model = self._model
        given = model.options.shutdown_timeout if isinstance(timeout, Unset) else timeout
        is_first = model.state not in ("draining", "closed")
        self._ending.ask(given, rate, again=not is_first)
        if model.state != "closed":
            self._begin_to_end()
            # It goes on if nobody waits for it any more.
            self._workers.start_soon(self._drain_all, given, rate, is_first)
        await self._closed.wait()

    def _begin_to_end(self) -> None:
        model = self._model
        if model.rehearsal is not None and model.rehearsal.is_running:
            model.rehearsal.end("over", "the listener was closed")
        model.state = "draining"
        model.version += 1
        self._workers.listener_closes()

    async def _drain_all(self, timeout_s: float | None, rate_per_s: float | None, is_first: bool) -> None:
        model = self._model
        processes = self._workers.serving(model.number)
        if is_first and model.rehearsal is not None:
            await self._look_at(model.rehearsal)  # its last report, before those who tell of it end
        async with anyio.create_task_group() as task_group:
            if is_first:
                task_group.start_soon(self._close_sockets, processes)
            for process in processes:
                each_per_s = None if rate_per_s is None else rate_per_s / len(processes)
                task_group.start_soon(self._drain, process, timeout_s, each_per_s)
        if model.state != "closed":
            await self.get_stats()  # once more: the last numbers
        if model.state != "closed":
            await self._settle()

    async def _settle(self) -> None:
        """Take over the last numbers of the workers, which then forget the listener."""
        model = self._model
        model.close_sockets()
        processes = self._workers.serving(model.number)
        parts = [part for process in processes if (part := process.control(model.number)) is not None]
        model.settle(processes)
        self._deaf.set()
        async with anyio.create_task_group() as task_group:  # before there may be another one of its name and address
            for part in parts:
                task_group.start_soon(_forget, part)
        self._closed.set()
        self._workers.listener_closed(model.number)

    async def _close_sockets(self, processes: Sequence[WorkerProcess]) -> None:
        """Close the sockets of each share once nobody accepts on them any more, or clients would queue for nobody."""
        by_share: defaultdict[int, list[WorkerProcess]] = defaultdict(list)
        for process in processes:
            by_share[process.share].append(process)
        sockets = self._model.sockets

        async def close_share(share: int) -> None:
            async with anyio.create_task_group() as waiting:
                for process in by_share[share]:
                    waiting.start_soon(self._wait_until_deaf, process)
            if sockets is not None:
                sockets.close_share(share)

        async with anyio.create_task_group() as task_group:
            for share in range(0 if sockets is None else len(sockets.shares)):
                task_group.start_soon(close_share, share)
        self._model.close_sockets()
        self._deaf.set()

    async def _wait_until_deaf(self, process: WorkerProcess) -> None:
        await process.begun.wait()
        if (part := process.control(self._model.number)) is not None:
            with suppress(EsockdError):  # it has ended
                await part.wait_draining()

    async def _drain(self, process: WorkerProcess, timeout_s: float | None, rate_per_s: float | None) -> None:
        await process.begun.wait()
        if (part := process.control(self._model.number)) is None:
            return  # it has ended before it accepted
        if self._model.sockets is not None and self._model.sockets.is_left:
            await process.retire()  # the queue is another program's
        most_s = math.inf if timeout_s is None or rate_per_s is not None else timeout_s + FORCE_AFTER_S
        has_died = False
        with anyio.move_on_after(most_s) as scope:
            try:
                await part.drain(timeout_s, rate_per_s)
            except InstanceUnreachable:
                has_died = True
            except EsockdError:
                pass  # it is closed already
        if scope.cancelled_caught:
            process.kill()
            has_died = True
        if has_died:
            with anyio.move_on_after(FORCE_AFTER_S):
                await process.ended.wait()  # and its connections are counted


async def _withdraw(part: WorkerPart) -> None:
    await part.kill()
    await part.forget()


async def _forget(part: WorkerPart) -> None:
    with anyio.move_on_after(ASK_S), suppress(EsockdError):  # it has ended; one that is slow hears of it later
        await part.forget()
