"""What connections and acceptors of one listener share: limits, counters, handler, and who is connected."""

from __future__ import annotations

import logging
import math
import time
from itertools import count
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import checkpoint

from esockd_core._connection import HANDLER_ERROR, IDLE_TIMEOUT, SEND_TIMEOUT
from esockd_core._errors import InvalidOption
from esockd_core._events import ConnectionEvent
from esockd_core._handler import CallbackHandler
from esockd_core._stats import Stats

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine

    from esockd_core._admission import Admission
    from esockd_core._carried import Carried
    from esockd_core._handler import CoroutineHandler, Handler
    from esockd_core._options import ListenerOptions
    from esockd_core._stats import Counters
    from esockd_core._upgrade import Upgrades

SWEEP_CHUNK = 1_000  # connections looked at before the event loop gets its turn
SAMPLES_PER_SWEEP = 16  # batches of accepted connections whose accept delay is measured
CLOSING_CHUNK = 256  # the same of closing ones, which cost a system call each

next_id = count(1).__next__


class Service:
    """The shared state of a listener that its connections and acceptors work on."""

    __slots__ = (
        "_changed",
        "_closing_swept_at",
        "_samples_left",
        "_starting",
        "_starting_since",
        "admission",
        "blocked",
        "callbacks",
        "caps_reads",
        "closing",
        "connections",
        "counters",
        "farewells",
        "log",
        "loop",
        "name",
        "new_task",
        "on_event",
        "options",
        "read_bytes",
        "serve",
        "sets_socket_options",
        "turn",
        "upgrades",
        "upgrading",
        "upstreams",
    )

    loop: asyncio.AbstractEventLoop
    """The event loop, set by its carrier; trio has none."""
    new_task: Callable[[Coroutine[Any, Any, object]], asyncio.Task[object]]
    """Starts a task named after the listener, likewise."""
    read_bytes: int
    """The most that is read from a socket at a time, set by the listener when it opens."""
    sets_socket_options: bool
    """Whether accepted sockets need options that they do not inherit, likewise."""
    caps_reads: bool
    """Whether the loop's transports have a `max_size` of a read, likewise."""

    def __init__(
        self,
        name: str,
        handler: Handler,
        options: ListenerOptions,
        admission: Admission,
        on_event: Callable[[ConnectionEvent], None] | None,
    ) -> None:
        self.name = name
        self.set_handler(handler)
        self.options = options
        self.admission = admission
        self.log = admission.log
        self.counters: Counters = admission.counters
        self.on_event = on_event
        self.connections: dict[int, Carried] = {}
        # A timer for each connection would cost more than the connection: `sweep` looks through these instead.
        self.blocked: dict[Carried, tuple[int, float]] = {}  # bytes unsent when last seen to change, and when
        self.farewells: set[Carried] = set()  # refused sockets that are still being told why
        self.closing: dict[Carried, tuple[int, float]] = {}  # as `blocked`, with bytes in the kernel
        self.upstreams: set[Carried] = set()  # what handlers forward to
        self.upgrades: Upgrades | None = None
        self.upgrading = admission.upgrading
        self._starting = 0  # handlers that the event loop will call for the first time, in one of its next passes
        self._starting_since = 0.0
        self._samples_left = SAMPLES_PER_SWEEP
        self._closing_swept_at = 0.0
        self.turn = anyio.Lock()
        self._changed: anyio.Event | None = None

    def set_handler(self, handler: Handler) -> None:
        """Serve the connections to come by this handler."""
        given: object = handler
        if isinstance(given, type) or (not callable(given) and not isinstance(given, CallbackHandler)):
            raise InvalidOption(
                f"the handler is {given!r}; it is a coroutine function, or an instance of CallbackHandler."
            )
        if isinstance(handler, CallbackHandler):
            self.callbacks: CallbackHandler | None = handler  # `serve` stays, for who was accepted for it just now
        else:
            self.callbacks = None
            self.serve: CoroutineHandler = handler

    def started(self, connection: Carried) -> None:
        """An admitted connection begins its life."""
        connection.id = next_id()
        connection.opened_at = time.time()
        self.connections[connection.id] = connection
        if self.on_event is not None:
            self._tell(ConnectionEvent("connection_started", self.name, connection))

    def stopped(self, connection: Carried, reason: str) -> None:
        """Nothing is left of a connection: neither its socket nor its handler."""
        if self.connections.pop(connection.id, None) is None:
            return  # it was given up as stuck, and ended after all
        self.admission.release(connection)
        counters = self.counters
        counters.bytes_in += connection.bytes_in
        counters.bytes_out += connection.bytes_out
        counters.count_end(reason)
        if self._changed is not None:
            self.announce_change()
        if self.on_event is not None:
            self._tell(ConnectionEvent("connection_stopped", self.name, connection, reason))

    def handler_due(self) -> None:
        """A task was made that calls a handler, on asyncio.

        Two calls of the loop for a whole batch of accepts: the first comes behind the first handler, the second behind
        all of them. So the delay noted for each is that of the last, and the look at the sockets that came after it.
        Where many come these two calls would be felt: only so many batches are measured between two sweeps.
        """
        if not self._starting:
            if not self._samples_left:
                return
            self._samples_left -= 1
            self._starting_since = self.loop.time()
            self.loop.call_soon(self.loop.call_soon, self._handlers_called)
        self._starting += 1

    def _handlers_called(self) -> None:
        self.counters.accept_delays.note(self.loop.time() - self._starting_since, self._starting)
        self._starting = 0

    async def changed(self) -> None:
        """Return when the next connection has ended, or somebody announces another change."""
        if self._changed is None:
            self._changed = anyio.Event()
        await self._changed.wait()

    def announce_change(self) -> None:
        """Wake everybody in `changed`."""
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    def handler_failed(self, connection: Carried, error: BaseException) -> str:
        """Log what a handler raised, once, unless there are too many; and name its reason."""
        self.log.say(
            logging.ERROR,
            "handler of connection %d from %s failed: %r",
            connection.id,
            connection.peername,
            error,
            connection=connection,
            reason=HANDLER_ERROR,
            error=error,
        )
        return HANDLER_ERROR

    def snapshot(self, accept_queue: tuple[int, int] | None) -> Stats:
        """Every counter at this moment; bytes include those of open connections.

        Args:
            accept_queue: Length and limit of the kernel's queue of clients to accept, as far as it tells.
        """
        counters = self.counters
        open_now = self.connections.values()
        return Stats(
            accepted=counters.accepted,
            closed_early=counters.closed_early,
            closed_forbidden=counters.closed_forbidden,
            closed_max_limit=counters.closed_max_limit,
            closed_rate_limited=counters.closed_rate_limited,
            closed_overloaded=counters.closed_overloaded,
            closed_other_reasons=counters.closed_other_reasons,
            closed_sys_limit=counters.closed_sys_limit,
            current_connections=self.admission.open_count,
            max_connections=self.admission.max_connections,
            bytes_in=counters.bytes_in + sum(connection.bytes_in for connection in open_now),
            bytes_out=counters.bytes_out + sum(connection.bytes_out for connection in open_now),
            shutdown_counts=dict(counters.shutdown_counts),
            upgrading=len(self.upgrading),
            accept_queue_length=None if accept_queue is None else accept_queue[0],
            accept_queue_limit=None if accept_queue is None else accept_queue[1],
            loop_lag_s=self.admission.loop_lag_s,
            loop_lags=counters.loop_lags.snapshot(),
            accept_delays=counters.accept_delays.snapshot(),
            handshakes=counters.handshakes.snapshot(),
        )

    def _tell(self, event: ConnectionEvent) -> None:
        if self.on_event is not None:
            try:
                self.on_event(event)
            except Exception as error:  # noqa: BLE001 - of the program
                self.log.say(logging.ERROR, "the on_event hook failed: %r", error, error=error)

    async def sweep(self, now: float) -> None:
        """Abort the sockets whose peer takes no bytes, or does not finish a close, for too long."""
        self._samples_left = SAMPLES_PER_SWEEP
        self.log.tell_left_out()
        self.upgrading.sweep(now, self.options)
        send_timeout_s = self.options.send_timeout
        for connection, (unsent, since) in list(self.blocked.items()):
            left = connection.unsent_bytes()
            if connection not in self.blocked:
                continue  # what a hook did to another connection ended this one
            if not left:
                del self.blocked[connection]
            elif left != unsent:
                self.blocked[connection] = (left, now)
            elif send_timeout_s is not None and now - since >= send_timeout_s:
                connection.abort(SEND_TIMEOUT)
        # These cost a system call each, so they are looked at less often, and not while most are about to end anyway: a
        # timeout is late by an eighth of itself.
        timeouts_s = (self.options.linger_timeout, math.inf if send_timeout_s is None else send_timeout_s)
        every_s = min(timeouts_s) / 8
        if now - self._closing_swept_at >= every_s:
            self._closing_swept_at = now
            await self._sweep_closing(now, every_s, *timeouts_s)

    async def _sweep_closing(self, now: float, every_s: float, linger_timeout_s: float, send_timeout_s: float) -> None:
        for position, (connection, (unsent, since)) in enumerate(list(self.closing.items())):
            if position % CLOSING_CHUNK == CLOSING_CHUNK - 1:
                await checkpoint()
            if now - since < every_s or connection not in self.closing:
                continue
            left = connection.undelivered_bytes()
            if left != unsent:
                self.closing[connection] = (left, now)
            elif left and now - since >= send_timeout_s:
                connection.abort(SEND_TIMEOUT)
            elif not left and now - since >= linger_timeout_s:
                connection.abort_socket()

    @property
    def sweep_all_every_s(self) -> float:
        """The pause between two calls of `sweep_all`, so that a timeout is late by an eighth of itself at most."""
        timeouts_s = (self.options.idle_timeout, self.options.send_timeout)
        return min((timeout_s / 8 for timeout_s in timeouts_s if timeout_s is not None), default=math.inf)

    async def sweep_all(self, now: float) -> None:
        """Abort connections that moved no byte for the idle timeout; have `sweep` watch where bytes wait for the peer.

        Less than `write_buffer_bytes` may wait without the event loop saying so.
        """
        idle_timeout_s = self.options.idle_timeout
        for upstream in list(self.upstreams):
            self._watch_unsent(upstream, now)
        for position, connection in enumerate(list(self.connections.values())):
            unsent = self._watch_unsent(connection, now)
            moved = connection.bytes_in + connection.bytes_out - unsent
            if moved != connection.moved_bytes:
                connection.moved_bytes, connection.moved_at = moved, now
            elif connection.state != "open":
                continue  # its end is bounded already
            elif idle_timeout_s is not None and now - connection.moved_at >= idle_timeout_s:
                connection.abort(IDLE_TIMEOUT)
            if position % SWEEP_CHUNK == SWEEP_CHUNK - 1:
                await checkpoint()

    def _watch_unsent(self, connection: Carried, now: float) -> int:
        unsent = connection.unsent_bytes()
        if unsent and connection not in self.blocked:
            self.blocked[connection] = (unsent, now)
        return unsent

    @property
    def leaves_in_backlog(self) -> bool:
        """Whether clients wait in the kernel's queue for room or a token, instead of being refused."""
        return self.admission.waits_for_room or self.admission.waits_for_token

    async def wait_for_turn(self) -> None:
        """Return when the next client may be taken from the kernel's queue."""
        while True:
            if self.admission.waits_for_room and not self.admission.has_room():
                await self.changed()
            elif self.admission.waits_for_token and (delay_s := self.admission.wait_time_s()) > 0:
                with anyio.move_on_after(delay_s):
                    await self.changed()  # the rate, perhaps
            else:
                return
