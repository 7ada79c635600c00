"""The load of one process: connections, messages that are due, and what becomes of them."""

from __future__ import annotations

import asyncio
import errno
import signal
import ssl
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from esockd_cli.bench.opening import open_link
from esockd_cli.bench.schedule import NS, Schedule
from esockd_cli.bench.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from esockd_cli.bench.links import Link
    from esockd_cli.bench.plan import Plan

AT_ONCE: Final = 64  # connections that are being opened
RETRY_S: Final = 0.1
SWEEP_S: Final = 0.1
LEAST_TICK_S: Final = 0.0001
SEQUENCE_BYTES: Final = 8


class Load:
    """The load of one process.

    Args:
        plan: What it is.

    Attributes:
        tally: What was counted.
        stopped: Set to end it early.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.tally: Tally = Tally()
        self.stopped: asyncio.Event = asyncio.Event()
        self.schedule: Schedule = Schedule(None if plan.mode == "idle" else plan.rate, plan.requests, plan.duration)
        self._filler = bytes(range(256)) * (plan.size // 256 + 1)
        self._sequence = plan.first
        self._free: deque[Link | asyncio.Future[int]] = deque()
        self._links: set[Link] = set()
        self._opening = 0
        self._under_way = 0
        self._gate = asyncio.Semaphore(plan.connections if plan.mode == "connect" else AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_begun = False
        self._is_ending = False
        self._last_answer = 0

    async def open_all(self) -> None:
        """Open every connection that is to stay, once: those that fail are tried again meanwhile."""
        if self.plan.mode == "connect":
            return
        begun = time.monotonic()
        firsts = []
        for number in range(self.plan.connections):
            if self.plan.mode == "idle" and self.plan.rate is not None:
                wait = begun + number / self.plan.rate - time.monotonic()
                if wait > 0 and await _set_within(self.stopped, wait):
                    break
            firsts.append(self._spawn_opening())
        while firsts and not self.stopped.is_set():
            done, _ = await asyncio.wait(firsts, timeout=SWEEP_S)
            firsts = [each for each in firsts if each not in done]

    async def run(self) -> None:
        """Make the load, which lasts as long as was planned, and one timeout more for answers."""
        plan = self.plan
        begun, cpu = time.perf_counter_ns(), time.process_time()
        self._last_answer = begun
        self.schedule.begin(begun)
        self._is_begun = True
        try:
            if plan.mode == "connect":
                for _ in range(plan.connections):
                    _ = self._spawn(self._customer())
            if plan.mode != "idle":
                if plan.rate is not None:
                    asyncio.get_running_loop().add_signal_handler(signal.SIGALRM, self._tick)
                    self._arm(begun)
                self._hand_out()
            await self._last(begun)
        finally:
            self._is_ending = True
            if plan.rate is not None:
                signal.setitimer(signal.ITIMER_REAL, 0)
        # What was waited for in vain after the planned end is no part of the time that the rate is over.
        elapsed = max(self._last_answer - begun, min(time.perf_counter_ns() - begun, int(plan.duration * NS)))
        self.tally.elapsed_s = elapsed / NS
        self.tally.cpu_s = time.process_time() - cpu
        if (unsent := self.schedule.unsent()) and not self.stopped.is_set():
            self.tally.errors["unsent"] += unsent

    async def _last(self, begun: int) -> None:
        """Return at the end, or when nothing more can come."""
        plan = self.plan
        end = begun + int(plan.duration * NS)
        bound = end if plan.mode == "idle" else end + int(plan.timeout * NS)
        while not await _set_within(self.stopped, min(SWEEP_S, max(0.0, (bound - time.perf_counter_ns()) / NS))):
            now = time.perf_counter_ns()
            if now >= bound:
                self._give_up()
                return
            self._sweep(now)
            if plan.mode != "idle" and not self._under_way and self.schedule.next_due(now) is None:
                return

    async def close(self) -> None:
        """End all connections."""
        self._is_ending = True
        for task in [*self._tasks]:
            task.cancel()
        for number, link in enumerate([*self._links], 1):
            link.close()
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
        await asyncio.sleep(0.05)  # what is written goes out

    # Connections

    def _spawn_opening(self) -> asyncio.Task[None]:
        return self._spawn(self._open_one())

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _open_one(self) -> None:
        link = await self._connect()
        if link is None:
            if not self._is_ending and self.plan.mode == "echo":
                asyncio.get_running_loop().call_later(RETRY_S, self._open_again)
            return
        if self.plan.mode == "idle":
            self.tally.completed += 1
            return
        self._offer(link)

    def _open_again(self) -> None:
        if not self._is_ending:
            _ = self._spawn_opening()

    async def _connect(self) -> Link | None:
        """Open a connection, or count why not."""
        plan = self.plan
        async with self._gate:
            begun = time.perf_counter_ns()
            self._opening += 1
            try:
                link = await open_link(plan, self)
            except (OSError, ssl.SSLError, TimeoutError) as error:
                self.tally.errors[kind_of_failure(error, is_encrypted=plan.transport in ("tls", "dtls"))] += 1
                return None
            finally:
                self._opening -= 1
            self.tally.connects.add(time.perf_counter_ns() - begun)
        if link.is_over:  # it was lost before anybody looked, and counted
            return None
        self._links.add(link)
        self.tally.connected += 1
        return link

    async def _customer(self) -> None:
        """Open a connection for each message, and close it."""
        while (due := await self._turn()) is not None:
            self._under_way += 1
            try:
                await self._visit(due)
            finally:
                self._under_way -= 1

    async def _turn(self) -> int | None:
        now = time.perf_counter_ns()
        if (due := self.schedule.take(now)) is not None:
            return due
        if self.schedule.next_due(now) is None:
            return None
        waiter: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._free.append(waiter)
        return await waiter

    async def _visit(self, due: int) -> None:
        link = await self._connect()
        if link is None:
            await asyncio.sleep(RETRY_S)
            return
        if self.plan.size:
            link.waiter = asyncio.get_running_loop().create_future()
            link.due, link.sent_at = due, time.perf_counter_ns()
            link.expected = self._payload()
            link.send(link.expected)
            await link.waiter
        else:
            self._count(due, time.perf_counter_ns())
        if not link.is_over:
            link.close()
            self._forget(link)

    # Messages

    def answered(self, link: Link) -> None:
        """Count an answer, and send the next message that is due."""
        now = time.perf_counter_ns()
        link.expected = b""
        self._count(link.due, now)
        if link.waiter is not None:
            if not link.waiter.done():
                link.waiter.set_result(None)
            return
        self._under_way -= 1
        self._offer(link, now)

    def failed(self, link: Link, kind: str) -> None:
        """Count what went wrong with a connection, and open another in its place."""
        if self._is_ending:
            return
        self.tally.errors[kind] += 1
        was_under_way, link.expected = bool(link.expected), b""
        link.abort()
        if link not in self._links:
            return
        self._forget(link)
        if link.waiter is not None:
            if not link.waiter.done():
                link.waiter.set_result(None)
            return
        self._under_way -= was_under_way
        if self.plan.mode == "echo":
            asyncio.get_running_loop().call_later(RETRY_S, self._open_again)

    def _forget(self, link: Link) -> None:
        self._links.discard(link)
        self.tally.connected -= 1

    def _count(self, due: int, now: int) -> None:
        self.tally.completed += 1
        self.tally.latencies.add(now - due)
        self._last_answer = now

    def _offer(self, link: Link, now: int = 0) -> None:
        """Let a connection send the next message, or wait for it."""
        due = self.schedule.take(now or time.perf_counter_ns()) if self._is_begun else None
        if due is None:
            self._free.append(link)
        else:
            self._ask(link, due)

    def _ask(self, link: Link, due: int) -> None:
        link.due, link.sent_at = due, time.perf_counter_ns()
        link.expected = payload = self._payload()
        self._under_way += 1
        link.send(payload)

    def _payload(self) -> bytes:
        """A message like no other, unless it is very short."""
        self._sequence += 1
        number = self._sequence.to_bytes(SEQUENCE_BYTES, "little")
        return (number + self._filler[: self.plan.size])[: self.plan.size]

    # Time

    def _tick(self) -> None:
        """Send what is due."""
        self._hand_out()
        self._arm(time.perf_counter_ns())

    def _hand_out(self) -> None:
        has_rate = self.plan.rate is not None
        while self._free:
            now = time.perf_counter_ns()
            first = self._free[0]
            is_gone = first.done() if isinstance(first, asyncio.Future) else first.is_over
            if is_gone:
                self._free.popleft()
                continue
            due = self.schedule.take(now)
            if due is None:
                break
            self._free.popleft()
            if has_rate:
                self.tally.lateness.add(now - due)
            if isinstance(first, asyncio.Future):
                first.set_result(due)
            else:
                self._ask(first, due)

    def _arm(self, now: int) -> None:
        """Wake up when the next message is due: event loops round their own timers to a millisecond."""
        due = self.schedule.next_due(now)
        if due is not None and not self._is_ending:
            signal.setitimer(signal.ITIMER_REAL, max((due - now) / NS, LEAST_TICK_S))

    def _sweep(self, now: int) -> None:
        """Give up what has not come in time."""
        oldest = now - int(self.plan.timeout * NS)
        for link in [each for each in self._links if each.expected and each.sent_at < oldest]:
            if self.plan.transport != "udp" or link.waiter is not None:
                self.failed(link, "timeout")
                continue
            self.tally.errors["timeout"] += 1
            link.late, link.expected = link.expected, b""
            self._under_way -= 1
            self._offer(link, now)

    def _give_up(self) -> None:
        """Count what is still under way at the very end."""
        if waiting := sum(bool(link.expected) for link in self._links):
            self.tally.errors["timeout"] += waiting
        if self._opening and self.plan.mode == "connect":
            self.tally.errors["connect_timeout"] += self._opening


def kind_of_failure(error: Exception, *, is_encrypted: bool) -> str:
    """Why a connection could not be opened."""
    number = getattr(error, "errno", None)
    if isinstance(error, TimeoutError):
        return "connect_timeout"
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if number in (errno.EMFILE, errno.ENFILE):
        return "no_descriptors"
    if number == errno.EADDRNOTAVAIL:
        return "no_ports"
    if isinstance(error, ssl.SSLError) or (is_encrypted and isinstance(error, ConnectionError)):
        return "handshake_failed"
    return "connect_failed"


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    """Wait for an event, and say whether it came."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
