"""One worker process, as its parent sees it."""

from __future__ import annotations

import logging
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import anyio
from anyio.abc import SocketStream

from esockd_core._errors import EsockdError
from esockd_core._platform.child_processes import wait_for_death
from esockd_core._platform.run_queue import waited_s
from esockd_core._remote.channel import Channel
from esockd_core._remote.errors import ControlError, InstanceUnreachable
from esockd_core._remote.remote_listener import RemoteListener
from esockd_core.control.instance import InstanceStatus, WorkerState
from esockd_core.workers._merging import NO_STATS
from esockd_core.workers._orders import RETIRE, write_order

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from esockd_core._stats.counters import Stats
    from esockd_core.control.interface import ListenerControl
    from esockd_core.workers._orders import Order
    from esockd_core.workers._shared_rehearsal import WorkerRehearsal

logger = logging.getLogger("esockd_core")

IDS_EACH: Final = 1 << 32  # connections of one process; JSON numbers stay exact for two million processes
BEAT_S: Final = 1.0
ANSWER_S: Final = 1.0
SLOW_S: Final = 2.0  # without an answer, new clients are steered to other workers
STOP_S: Final = 1.0  # to stop accepting, before it is told to end
REAP_S: Final = 10.0
LOOK_AGAIN_S: Final = 0.1  # whether it could have answered by now


class Silence:
    """Since when a process has not answered.

    Args:
        pid: The process.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._began_at = anyio.current_time()
        self._waited_s = waited_s(pid)

    def seconds(self) -> float:
        """For how long, without the time for which no processor was free for it."""
        return anyio.current_time() - self._began_at - max(waited_s(self._pid) - self._waited_s, 0.0)

    async def lasts(self, for_s: float) -> None:
        """Return once it has lasted for this number of seconds."""
        while (left_s := for_s - self.seconds()) > 0:  # noqa: ASYNC110 (only time is waited for)
            await anyio.sleep(max(left_s, LOOK_AGAIN_S))


class WorkerProcess:
    """A process from its start to its death.

    Args:
        share: The number of its share.
        generation: Counts the processes of the program, from 1.
        slot: Its slot in the shared memory.

    Attributes:
        pid: Its process id; 0 before it is started.
        state: Where it is in its life.
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
        self.pid = 0
        self.state: WorkerState = "starting"
        self.ended = anyio.Event()
        self.status: int | None = None
        self.instance: InstanceStatus | None = None
        self.stats: dict[int, Stats] = {}
        self.rehearsals: dict[int, WorkerRehearsal] = {}
        self.started_at = anyio.current_time()
        self.was_retired = False
        self._controls: dict[int, ListenerControl] = {}
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

    def control(self, number: int) -> ListenerControl | None:
        """Its part of a listener; None if it has none."""
        return self._controls.get(number)

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
            self._controls[each.number] = RemoteListener(channel, each.name, str(each.address))
            self.stats[each.number] = NO_STATS
        self.state = "running"

    async def _spawn(self, descriptors: Iterable[int]) -> SocketStream:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                # By this thread, whose end is that of its children (PR_SET_PDEATHSIG), and not one of a pool.
                self._process = subprocess.Popen(  # noqa: S603, ASYNC220 (milliseconds)
                    [sys.executable, "-m", "esockd_core.workers._program", str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(), *descriptors),
                    start_new_session=True,  # Ctrl-C is for the parent
                )
            self.pid = self._process.pid
            ours.setblocking(False)
            self._stream = await SocketStream.from_socket(ours)
        except BaseException:
            ours.close()
            raise
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
        await anyio.sleep(SLOW_S)
        if self.state == "running":
            self.state = "slow"
            on_change()
        while stuck_timeout_s is not None:
            await silence.lasts(stuck_timeout_s)
            # Asked again, because it may have waited for another one that was killed just now.
            if await may_kill() and not await self.answers(ANSWER_S):
                logger.error("%s has not answered for %g seconds: it is killed", self, stuck_timeout_s)
                self.kill()
                return
            await anyio.sleep(LOOK_AGAIN_S)

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

    async def look(self) -> None:
        """Ask the process about itself and its listeners.

        Raises:
            EsockdError: If it has ended.
        """
        if self._channel is None:
            return
        self.instance = InstanceStatus.from_dict(await self._channel.request("get_instance", {}))
        for number, control in self._controls.items():
            self.stats[number] = await control.get_stats()
            if (rehearsal := self.rehearsals.get(number)) is not None:
                rehearsal.report = await control.get_rehearsal()

    async def retire(self) -> None:
        """Let it finish its connections and end; another process serves the queue of its sockets.

        It takes no client any more when this returns, unless it did not answer in time.
        """
        self.was_retired = True
        try:
            with anyio.move_on_after(STOP_S), suppress(EsockdError):  # it is closed already, or has ended
                for control in self._controls.values():
                    await control.suspend()
                if self.rehearsals:
                    await self.look()  # a rehearsal has judged its last client
        finally:
            if self.state != "ended":
                self.state = "retiring"
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
        self.state = "ended"
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
            return ControlError(f"no worker process can be started: {error}", code="cannot_start")
    return error
