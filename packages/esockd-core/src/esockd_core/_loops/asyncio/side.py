"""What the connections of one listener use of asyncio or uvloop."""

from __future__ import annotations

import asyncio
import math
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from esockd_core._loops.asyncio.rounds import Rounds

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from esockd_core._stats.histogram import Histogram

REFILL_EVERY_S: Final = 0.09
SHORTEST_S: Final = 0.01  # of the timeouts that have rounds of their own
SAMPLES: Final = 16  # batches of accepted connections whose accept delay is measured between two refills
UNASKED: Final = 31  # connections for which nobody looks at the clock, after it showed that no refill is due


class AsyncioSide:
    """The running event loop, as connections use it.

    Args:
        name: The listener's name, which tasks get too.
        accept_delays: Notes the delays from admission to the handler's first step.

    Attributes:
        context: The context variables of the code that opened the listener; its handlers start with them.
        loop: The event loop.
        new_task: Starts a native task.
        resumes: Whether what arrives resumes tasks where it arrives; see `resume`.
        spare: A future for the next wait, which esockd-speedups keeps.
        woken: A future that is done.
        caps_reads: Whether the loop's transports have a `max_size` of a read.
    """

    __slots__ = (
        "_delays",
        "_due",
        "_due_since",
        "_refill_at",
        "_rounds",
        "_samples_left",
        "_unasked",
        "caps_reads",
        "context",
        "loop",
        "new_task",
        "resumes",
        "spare",
        "woken",
    )

    def __init__(self, name: str, accept_delays: Histogram) -> None:
        self.context = copy_context()
        self.loop = loop = asyncio.get_running_loop()
        self.new_task: Callable[[Coroutine[Any, Any, object]], asyncio.Task[object]]
        if loop.get_task_factory() is None:
            self.new_task = partial(asyncio.Task, loop=loop, name=name)  # half the cost of create_task
        else:
            self.new_task = partial(loop.create_task, name=name)
        self.resumes = not loop.get_debug()
        self.spare: asyncio.Future[None] | None = None
        self.woken: asyncio.Future[None] = loop.create_future()
        self.woken.set_result(None)
        self.caps_reads = isinstance(loop, asyncio.SelectorEventLoop)
        self._delays = accept_delays
        self._rounds: dict[float, Rounds] = {}
        self._due = 0  # handlers that the event loop will call for the first time, in one of its next passes
        self._due_since = 0.0
        self._samples_left = SAMPLES
        self._unasked = 0
        self._refill_at = 0.0

    def handler_due(self) -> None:
        """Note that a task was made that calls a handler.

        A whole batch of accepts takes two calls of the loop: the first comes after the first handler, the second after
        all of them. So the delay noted for each includes that of the last and one poll of the sockets. With many
        clients the two calls would cost too much, so only some batches are measured.
        """
        if not self._due:
            if self._unasked:
                self._unasked -= 1
                return
            if not self._samples_left and not self._refill():
                self._unasked = UNASKED
                return
            self._samples_left -= 1
            self._due_since = self.loop.time()
            self.loop.call_soon(self.loop.call_soon, self._handlers_called)
        self._due += 1

    def _refill(self) -> bool:
        now = self.loop.time()
        if now < self._refill_at:
            return False
        self._refill_at = now + REFILL_EVERY_S
        self._samples_left = SAMPLES
        return True

    def _handlers_called(self) -> None:
        self._delays.note_several(self.loop.time() - self._due_since, self._due)
        self._due = 0

    def rounds(self, timeout_s: float) -> Rounds:
        """Rounds of 8 to 16 looks within a timeout: those of all timeouts of about this length."""
        interval_s = 2.0 ** (math.frexp(max(timeout_s, SHORTEST_S))[1] - 4)
        rounds = self._rounds.get(interval_s)
        if rounds is None:
            rounds = self._rounds[interval_s] = Rounds(self.loop, interval_s)
        return rounds

    def end_program(self, error: BaseException) -> None:
        """Raise an error that ends the program, outside the protocol's methods, where uvloop would swallow it."""
        self.loop.call_soon(_raise, error)


def _raise(error: BaseException) -> None:
    raise error
