"""One worker process, as its parent sees it."""

from __future__ import annotations

import logging
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Final

import anyio
from anyio.abc import SocketStream

from esockd_core._errors import EsockdError, ListenerClosed, UnknownListener
from esockd_core._platform.child_processes import wait_for_death
from esockd_core._platform.open_files import hint_of
from esockd_core._remote.channel import Channel
from esockd_core._remote.errors import ControlError, InstanceUnreachable
from esockd_core.control.instance import InstanceStatus, WorkerState
from esockd_core.workers._descriptors import descriptor_pair
from esockd_core.workers._merging import NO_STATS
from esockd_core.workers._orders import RETIRE, write_order
from esockd_core.workers._part import WorkerPart
from esockd_core.workers._silence import LOOK_AGAIN_S, Silence, answered

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    from esockd_core._stats.counters import Stats
    from esockd_core.workers._descriptors import DescriptorSender
    from esockd_core.workers._orders import ListenerOrder, Order
    from esockd_core.workers._shared_rehearsal import WorkerRehearsal

logger = logging.getLogger("esockd_core")

IDS_EACH: Final = 1 << 32  # connections of one process; JSON numbers stay exact for two million processes
BEAT_S: Final = 1.0
ANSWER_S: Final = 1.0
SLOW_S: Final = 2.0  # without an answer, new clients are steered to other workers
STOP_S: Final = 1.0  # to stop accepting, before it is told to end
REAP_S: Final = 10.0


class WorkerProcess:
    """A process from its start to its death.

    Args:
        share: The number of its share.
        generation: Counts the processes of the program, from 1.
        slot: Its slot in the shared memory.

    Attributes:
        pid: Its process id; 0 before it is started.
        state: Where it is in its life.
        begun: Set when it accepts, or has ended before that.
        ended: Set when it has ended.
        status: Its exit status, minus the signal if one killed it; None before its end.
        instance: What it last told of itself.
        stats: What it last told of each listener, by the listener's number.
        rehearsals: Its part in rehearsals, by the listener's number.
        started_at: By the event loop's clock.
        was_retired: Whether its end was asked for; the state is "retiring" once it has stopped accepting.
    """

    def __init__(self, share: int, generation: int, slot: int) -> None:
        self.share = share
        self.generation = generation
        self.slot = slot
        self.pid: int = 0
        self.state: WorkerState = "starting"
        self.begun: anyio.Event = anyio.Event()
        self.ended: anyio.Event = anyio.Event()
        self.status: int | None = None
        self.instance: InstanceStatus | None = None
        self.stats: dict[int, Stats] = {}
        self.rehearsals: dict[int, WorkerRehearsal] = {}
        self.started_at: float = anyio.current_time()
        self.was_retired: bool = False
        self._imports = 0
        self._parts: dict[int, WorkerPart] = {}
        self._listeners: frozenset[int] = frozenset()
        self._descriptors: DescriptorSender | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._stream: SocketStream | None = None
        self._channel: Channel | None = None

    def __str__(self) -> str:
        return f"worker {self.share} (pid {self.pid})"

    @property
    def first_id(self) -> int:
        """The id of its first connection."""
        return self.generation * IDS_EACH + 1

    @property
    def is_live(self) -> bool:
        """Whether it serves connections."""
        return self.state in ("running", "slow", "retiring")

    @property
    def can_open(self) -> bool:
        """Whether it can be asked to open a listener."""
        return self.is_live and not self.was_retired and self._channel is not None and not self._channel.is_lost

    def control(self, number: int) -> WorkerPart | None:
        """Its part of a listener; None if it has none, or does not accept yet."""
        return self._parts.get(number)

    def has(self, number: int) -> bool:
        """Whether it has a part of a listener, or will have once it accepts."""
        return number in self._parts or (not self.begun.is_set() and number in self._listeners)

    def add(self, order: ListenerOrder) -> None:
        """Note that it has a part of a listener, or is about to."""
        if self._channel is None or self._descriptors is None:
            raise AssertionError("it does not run")
        self._parts[order.number] = WorkerPart(self._channel, self._descriptors, order, self.share)
        self.stats[order.number] = NO_STATS

    def remove(self, number: int) -> Stats | None:
        """Forget a listener, and return what it last told of it."""
        self._parts.pop(number, None)
        self.rehearsals.pop(number, None)
        return self.stats.pop(number, None)

    async def start(self, order: Order, descriptors: Iterable[int], timeout_s: float) -> None:
        """Start the process and return when it accepts.

        Args:
            order: What it is to do.
            descriptors: What it inherits.
            timeout_s: The most seconds that this may take.

        Raises:
            EsockdError: If it cannot start; the error says why.
        """
        data = write_order(order)
        self._listeners = frozenset(each.number for each in order.listeners)
        status: int | None = None
        try:
            stream = await self._spawn(descriptors)
            channel = Channel(stream, str(self))
            with anyio.fail_after(timeout_s):
                await stream.send(data)
                await channel.greeting()
        except Exception as error:
            with anyio.CancelScope(shield=True):
                status = await self._reap()
            raise _why(self, error, status, timeout_s) from error
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._reap()
            raise
        self._channel = channel
        for each in order.listeners:
            self.add(each)
        self.state = "running"
        self.begun.set()

    async def _spawn(self, descriptors: Iterable[int]) -> SocketStream:
        with ExitStack() as undo:
            ours, theirs = socket.socketpair()
            undo.enter_context(ours)
            with theirs:
                self._descriptors, inbox = descriptor_pair()
                with inbox:
                    ends = theirs.fileno(), inbox.fileno()
                    # By this thread, whose end is that of its children (PR_SET_PDEATHSIG), and not one of a pool.
                    self._process = subprocess.Popen(  # noqa: S603, ASYNC220 (milliseconds)
                        [sys.executable, "-m", "esockd_core.workers._program", *map(str, ends)],
                        stdin=subprocess.DEVNULL,
                        pass_fds=(*ends, *descriptors),
                        start_new_session=True,  # Ctrl-C is for the parent
                    )
            self.pid = self._process.pid
            ours.setblocking(False)
            self._stream = await SocketStream.from_socket(ours)
            undo.pop_all()
        return self._stream

    async def watch(
        self, stuck_timeout_s: float | None, on_change: Callable[[], None], may_kill: Callable[[], Awaitable[bool]]
    ) -> None:
        """Watch the process until it has ended.

        Args:
            stuck_timeout_s: The most seconds without an answer; None for any number.
            on_change: Called when its state changes.
            may_kill: Asked before it is killed because it does not answer.
        """
        if self._process is None or self._channel is None:
            raise AssertionError("it was not started")
        try:
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(self._channel.run)
                task_group.start_soon(self._beat, stuck_timeout_s, on_change, may_kill)
                await wait_for_death(self._process)
                task_group.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await self._reap()

    async def _beat(
        self, stuck_timeout_s: float | None, on_change: Callable[[], None], may_kill: Callable[[], Awaitable[bool]]
    ) -> None:
        while True:
            await anyio.sleep(BEAT_S)
            async with anyio.create_task_group() as asking:
                asking.start_soon(self._wait_for_answer, stuck_timeout_s, on_change, may_kill)
                try:
                    await self.look()
                except EsockdError:
                    return  # it has ended, or does in a moment
                finally:
                    asking.cancel_scope.cancel()
            if self.state == "slow":
                self.state = "running"
                on_change()

    async def _wait_for_answer(
        self, stuck_timeout_s: float | None, on_change: Callable[[], None], may_kill: Callable[[], Awaitable[bool]]
    ) -> None:
        """Wait for its answer until cancelled, and do what is due meanwhile."""
        silence = Silence(self.pid)
        await silence.lasts(SLOW_S)
        if self.state == "running":
            self.state = "slow"
            on_change()
        while stuck_timeout_s is not None:
            await silence.lasts(stuck_timeout_s)
            if self._imports:
                silence = Silence(self.pid)
                continue
            # Asked again, because it may have waited for another one that was killed just now.
            if await may_kill() and not await self.answers(ANSWER_S):
                logger.error("%s has not answered for %g seconds: it is killed", self, stuck_timeout_s)
                self.kill()
                return
            await anyio.sleep(LOOK_AGAIN_S)

    @contextmanager
    def importing(self) -> Iterator[None]:
        """Let it import code for the duration of a block, and so not answer. Whoever asked bounds the time."""
        self._imports += 1
        try:
            yield
        finally:
            self._imports -= 1

    async def answers(self, patience_s: float) -> bool:
        """Whether it answers within this number of seconds in which it can run."""
        silence, answered = Silence(self.pid), False
        async with anyio.create_task_group() as asking:

            async def look() -> None:
                nonlocal answered
                with suppress(EsockdError):  # it has ended
                    await self.look()
                    answered = True
                asking.cancel_scope.cancel()

            asking.start_soon(look)
            await silence.lasts(patience_s)
            asking.cancel_scope.cancel()
        return answered

    async def greet(self) -> None:
        """Return once it answers.

        Raises:
            EsockdError: If it has ended.
        """
        if self._channel is None:
            raise AssertionError("it does not run")
        await self._channel.request("hello", {})

    async def look(self) -> None:
        """Ask the process about itself and its listeners.

        Raises:
            EsockdError: If it has ended.
        """
        if self._channel is None:
            return
        self.instance = InstanceStatus.from_dict(await self._channel.request("get_instance", {}))
        for number, control in tuple(self._parts.items()):
            try:
                stats = await control.get_stats()
                if number in self._parts:
                    self.stats[number] = stats
                if (rehearsal := self.rehearsals.get(number)) is not None:
                    rehearsal.report = await control.get_rehearsal()
            except UnknownListener:
                continue  # it was closed meanwhile

    async def retire(self) -> None:
        """Let it finish its connections and end; another process serves the queue of its sockets.

        It takes no client any more when this returns, unless it did not answer in time.
        """
        self.was_retired = True
        try:
            with suppress(EsockdError, TimeoutError):  # it is closed already, or has ended
                await answered(self.pid, STOP_S, self._stop_accepting)
        finally:
            if self.state != "ended":
                self.state = "retiring"
            self._signal(RETIRE)

    async def _stop_accepting(self) -> None:
        for control in tuple(self._parts.values()):
            with suppress(ListenerClosed):
                await control.suspend()
        if self.rehearsals:
            await self.look()  # a rehearsal has judged its last client

    def dismiss(self) -> None:
        """Let it end, because all of its listeners are closed."""
        self.was_retired = True
        self._signal(RETIRE)

    def kill(self) -> None:
        """End it at once."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def _reap(self) -> int | None:
        if self._process is not None:
            self.kill()
            with anyio.move_on_after(REAP_S):
                self.status = await wait_for_death(self._process)
        if self._stream is not None:
            await anyio.aclose_forcefully(self._stream)
        if self._descriptors is not None:
            self._descriptors.close()
        self.state = "ended"
        self.begun.set()
        self.ended.set()
        return self.status


def _why(process: WorkerProcess, error: Exception, status: int | None, timeout_s: float) -> Exception:
    """Why a worker did not start."""
    match error:
        case TimeoutError():
            return ControlError(f"{process} has not begun to accept for {timeout_s:g} seconds", code="cannot_start")
        case InstanceUnreachable() | anyio.BrokenResourceError() | anyio.ClosedResourceError():
            return ControlError(f"{process} ended with status {status} before it accepted", code="cannot_start")
        case OSError():
            text = f"no worker process can be started: {error.strerror or error}"
            return ControlError(text, code="cannot_start", hint=hint_of(error.errno))
    return error
