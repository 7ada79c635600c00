"""A listener: one opened address, from its first socket to the end of its last connection."""

from __future__ import annotations

import logging
import socket
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import anyio
from anyio.lowlevel import checkpoint

from esockd_core._acceptors import Acceptor, Acceptors
from esockd_core._address import parse_address
from esockd_core._admission import Admission
from esockd_core._connection import READ_BYTES
from esockd_core._ending import Ending, drain_connections, end_connections
from esockd_core._errors import InvalidOption, ListenerClosed
from esockd_core._limits import clamp_max_connections
from esockd_core._option_changes import merge_options
from esockd_core._options import DEFAULT_MAX_CONNECTIONS, ListenerOptions
from esockd_core._service import Service
from esockd_core._sockets import ListeningSockets, open_sockets
from esockd_core._stats import Counters, Refusal, Stats
from esockd_core._transports import open_carrier
from esockd_core._upgrade import plan_upgrades

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from anyio.abc import TaskGroup, TaskStatus

    from esockd_cidr import AccessList
    from esockd_core._address import Address
    from esockd_core._connection import StreamConnection
    from esockd_core._events import ConnectionEvent
    from esockd_core._handler import Handler
    from esockd_core._tls_options import TlsOptions
    from esockd_core._transports import Carrier

logger = logging.getLogger("esockd_core")

TICK_S: Final = 0.1  # between two looks at timeouts and at the event loop's lag
READ_PASSES: Final = 8  # of the event loop, before a drain: who was queued is registered, read from and seen to finish

ListenerState: TypeAlias = Literal["new", "running", "suspended", "draining", "closed"]


class Unset(Enum):
    """Says that an argument was not given, where None means something."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET


class Listener:
    """One opened address and the connections it accepted.

    Run it in a task group of your own, `await task_group.start(listener.run)`, or let `open_listener` or a `Server` do
    so. Whatever happens to a connection stays with that connection.

    Args:
        name: What logs, statistics and control call it.
        address: Where to listen; see `parse_address` for the grammar.
        handler: A coroutine function that is called with each connection, or a `CallbackHandler`.
        options: What else it does.
        on_event: Called at the start and at the end of each connection.
        counters: Counters to go on with; a `Server` hands them from a closed listener to the next of its name.

    Raises:
        InvalidAddress: The address is none.
        InvalidOption: An option is out of bounds or does not apply.
    """

    def __init__(
        self,
        name: str,
        address: object,
        handler: Handler,
        options: ListenerOptions | None = None,
        *,
        on_event: Callable[[ConnectionEvent], None] | None = None,
        counters: Counters | None = None,
    ) -> None:
        self.name = name
        self.address: Address = parse_address(address)
        options = _fit(options or ListenerOptions())
        _require_stream(self.address)
        upgrades = plan_upgrades(self.address, options)
        self._admission = Admission(options, options.access_list(), counters or Counters(), is_inet=True)
        self._service = Service(name, handler, options, self._admission, on_event)
        self._service.upgrades = upgrades
        self._state: ListenerState = "new"
        self._was_run = False
        self._was_open = False
        self._sockets: ListeningSockets | None = None
        self._acceptors: Acceptors | None = None
        self._carrier: Carrier | None = None
        self._task_group: TaskGroup | None = None
        self._failure: Exception | None = None
        self._ending = Ending(options.shutdown_timeout)
        self._changing = anyio.Lock()  # one change of state at a time
        self._end_requested = anyio.Event()
        self._closed = anyio.Event()

    # Running

    async def run(self, *, task_status: TaskStatus[Listener] = anyio.TASK_STATUS_IGNORED) -> None:
        """Open the address, serve it until the listener is closed, and end every connection.

        Args:
            task_status: Told when the listener accepts: `listener = await task_group.start(listener.run)`.

        Raises:
            AddressInUse: Somebody else listens there.
            CannotBind: The address cannot be opened.
            OSError: The listening socket failed for good.
        """
        if self._was_run:
            raise ListenerClosed(f"listener {self.name} was run already: make a new one")
        self._was_run = True
        try:
            self._sockets = await self._open(self.address)
            async with open_carrier(self._service) as self._carrier:
                try:
                    self._make_acceptors()
                    await self._serve(task_status)
                finally:
                    with anyio.CancelScope(shield=True):
                        await end_connections(self._service)
        finally:
            self._state = "closed"
            self._close_sockets()
            self._closed.set()
        if self._failure is not None:
            raise self._failure

    async def _serve(self, task_status: TaskStatus[Listener]) -> None:
        async with anyio.create_task_group() as self._task_group:
            self._task_group.start_soon(self._keep_house)
            self._start_accepting()
            self._was_open = True
            task_status.started(self)
            await self._end_requested.wait()
            async with self._changing:
                self._state = "draining"
                await self._stop_accepting()
            for _ in range(READ_PASSES):
                await checkpoint()
            await drain_connections(self._service, self._ending)
            self._task_group.cancel_scope.cancel()

    async def _open(self, address: Address) -> ListeningSockets:
        sockets = await open_sockets(address, self.options.tcp, self.options.unix)
        # Read from the socket: what is inherited may be of any family.
        first, tcp = sockets.sockets[0], self.options.tcp
        self._admission.is_inet = first.family != socket.AF_UNIX
        self._service.read_bytes = tcp.read_chunk_bytes(first, READ_BYTES)
        buffers = (tcp.receive_buffer_bytes, tcp.send_buffer_bytes)
        self._service.sets_socket_options = not tcp.nodelay if self._admission.is_inet else any(buffers)
        return sockets

    def _make_acceptors(self) -> None:
        if self._acceptors is None and self._sockets is not None and self._carrier is not None:
            self._acceptors = Acceptors(self.name, self._sockets, self._carrier, self.options.acceptors)

    def _start_accepting(self) -> None:
        self._make_acceptors()
        if self._acceptors is not None and self._task_group is not None:
            self._acceptors.start(self._task_group, self._fail)
            self._state = "running"

    async def _stop_accepting(self) -> None:
        """Take who waits in the kernel's queue already, and close the listening sockets."""
        if self._acceptors is not None:
            await self._acceptors.stop()
        for listening in self._sockets.sockets if self._sockets is not None else ():
            if self._carrier is not None:
                with suppress(OSError):  # the failure that brought the listener here
                    await self._carrier.serve_queued(listening)
        self._close_sockets()

    def _close_sockets(self) -> None:
        if self._acceptors is not None:
            self._acceptors.close()
            self._acceptors = None
        if self._sockets is not None:
            self._sockets.close()
            self._sockets = None

    def _fail(self, error: Exception) -> None:
        logger.error("listener %s: cannot accept any more: %r", self.name, error)
        self._failure = error  # raised by `run` once the connections have ended
        self._end_requested.set()

    async def _keep_house(self) -> None:
        """Look at timeouts and at the event loop's lag, a few times a second."""
        now = swept_at = anyio.current_time()
        while True:
            # From now, not from when it was due: a lag holds good until the next look, a tick later.
            due = now + TICK_S
            await anyio.sleep_until(due)
            now = anyio.current_time()
            self._admission.loop_lag_s = max(0.0, now - due)
            try:
                self._service.sweep(now)
                if now - swept_at >= self._service.sweep_all_every_s:
                    swept_at = now
                    await self._service.sweep_all(now)
            except Exception:
                logger.exception("listener %s: looking at timeouts failed; the next look is due", self.name)

    # Changing

    async def suspend(self) -> None:
        """Stop accepting. Open connections go on; new clients wait in the kernel's queue.

        Raises:
            ListenerClosed: The listener is not open, or draining.
        """
        async with self._changing:
            self._require_open()
            self._state = "suspended"  # first: who is cancelled while it waits must find a listener that can resume
            if self._acceptors is not None:
                await self._acceptors.stop()

    async def resume(self) -> None:
        """Accept again.

        Raises:
            ListenerClosed: The listener is not open, or draining, or has lost its address in `reopen`.
        """
        async with self._changing:
            self._require_open()
            if self._sockets is None:
                raise ListenerClosed(f"listener {self.name} could not be reopened: try `reopen` again")
            if self._state == "suspended":
                self._start_accepting()

    async def reopen(self, address: object = None) -> None:
        """Close the listening sockets and open new ones; connections stay open and counters go on.

        Who waits in the kernel's queue is served first. A suspended listener stays suspended.

        Args:
            address: Where to listen from now on; None is where it listens already, with port 0 on the same port.

        Raises:
            ListenerClosed: The listener is not open, or draining.
            InvalidAddress: The address is none.
            InvalidOption: It is for TLS and the listener is not, or the other way round.
            AddressInUse: Somebody else listens there. At another address the listener goes on at the old one; at its
                own it is suspended until it is reopened.
            CannotBind: The address cannot be opened; likewise.
        """
        async with self._changing:
            self._require_open()
            wanted = self.address if address is None else parse_address(address)
            moves = wanted != self.address
            if moves:
                _require_stream(wanted)
                plan_upgrades(wanted, self.options)
            place = wanted if moves or wanted.port != 0 else replace(wanted, port=self.port or 0)
            fresh = await self._open(place) if moves else None
            was_running, self._state = self._state == "running", "suspended"
            try:
                await self._stop_accepting()
            except BaseException:
                if fresh is not None:
                    fresh.close()
                raise
            self._sockets = fresh or await self._open(place)
            self.address = wanted
            if was_running:
                self._start_accepting()

    def _require_open(self) -> None:
        if self._state not in ("running", "suspended"):
            raise ListenerClosed(f"listener {self.name} is {self._state}: open a new one")

    def set_handler(self, handler: Handler) -> None:
        """Serve new connections by another handler; open ones keep theirs."""
        self._service.set_handler(handler)

    def set_tls(self, options: TlsOptions | None = None) -> None:
        """Speak TLS with new connections by other options, or read the files again; open connections go on as they are.

        It reads files: seldom, and never of a network, so it does not bother to wait.

        Args:
            options: None for those in force, whose certificates were replaced.

        Raises:
            InvalidOption: A file is missing, unreadable or does not match: the ones in force stay. Or this is no
                listener for TLS.
        """
        upgrades = self._service.upgrades
        if upgrades is None or upgrades.context is None or self.options.tls is None:
            raise InvalidOption(f"listener {self.name} on {self.address} speaks no TLS")
        if options is None:
            upgrades.context = self.options.tls.build_context()
        else:
            upgrades.context = options.context
            self._service.options = replace(self.options, tls=options)

    async def drain(self, timeout: float | Unset | None = UNSET, rate: float | None = None) -> None:
        """Close the listener gracefully and wait until its last connection has ended.

        It stops accepting, serves who is queued already, sets `draining` on each connection and tells its handler.
        A handler that has not ended `timeout` seconds after it was told is cancelled, and a second later its socket is
        closed whatever it does.

        Args:
            timeout: Seconds for each handler; None is for ever, 0 at once; `shutdown_timeout` when not given.
            rate: Connections told in a second, so that clients do not come back as one wave; None is all at once.
                Asking again while it drains can hurry it, never slow it down.

        Raises:
            InvalidOption: Timeout or rate is no number that makes sense.
            ListenerClosed: The listener was never opened.
        """
        if not self._was_run:  # one that is just being opened is closed once it is
            raise ListenerClosed(f"listener {self.name} is not open")
        given = self.options.shutdown_timeout if isinstance(timeout, Unset) else timeout
        self._ending.ask(given, rate, again=self._end_requested.is_set())
        self._service.announce_change()
        self._end_requested.set()
        await self._closed.wait()

    async def close(self) -> None:
        """Close the listener gracefully, each handler having `shutdown_timeout`."""
        await self.drain()

    async def kill(self) -> None:
        """Close the listener and cancel every handler at once."""
        await self.drain(timeout=0)

    async def wait_closed(self) -> None:
        """Return when nothing is left of the listener."""
        await self._closed.wait()

    # Looking at it

    @property
    def state(self) -> ListenerState:
        """Where the listener is in its life."""
        return self._state

    @property
    def was_open(self) -> bool:
        """Whether it ever accepted."""
        return self._was_open

    @property
    def options(self) -> ListenerOptions:
        """The options in force."""
        return self._service.options

    @property
    def access_rules(self) -> AccessList:
        """The live access rules; a change holds for the next client."""
        return self._admission.access

    @property
    def addresses(self) -> tuple[str, ...]:
        """What is really bound, one text a socket; empty before and after."""
        return self._sockets.addresses if self._sockets is not None else ()

    @property
    def port(self) -> int | None:
        """The real port, the same for each socket; None for a Unix socket or when not open."""
        return self._sockets.port if self._sockets is not None else None

    @property
    def acceptors(self) -> tuple[Acceptor, ...]:
        """The acceptors, one or more for each socket."""
        return tuple(self._acceptors.acceptors) if self._acceptors is not None else ()

    @property
    def connections(self) -> tuple[StreamConnection, ...]:
        """The connections that have not ended, oldest first."""
        return tuple(self._service.connections.values())

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """The last refused sockets, at most 256, oldest first."""
        return tuple(self._service.counters.refusals)

    def stats(self) -> Stats:
        """A snapshot of every counter."""
        return self._service.snapshot()


def _require_stream(address: Address) -> None:
    if address.is_datagram:
        raise InvalidOption(f"{address}: this version serves tcp, tls and unix addresses")


def _fit(options: ListenerOptions) -> ListenerOptions:
    """Bound `max_connections` by the open-file limit."""
    explicit = options.max_connections != DEFAULT_MAX_CONNECTIONS
    most, warning = clamp_max_connections(options.max_connections, explicit=explicit)
    if warning is not None:
        logger.warning(warning)
    return replace(options, max_connections=most)


@asynccontextmanager
async def open_listener(
    name: str, address: object, handler: Handler, options: ListenerOptions | None = None, **changes: Any
) -> AsyncIterator[Listener]:
    """Run a listener for the duration of a block, and close it gracefully at the end.

    Args:
        name: See `Listener`.
        address: See `Listener`.
        handler: See `Listener`.
        options: See `Listener`.
        changes: Single options by name, on top of `options`; and `on_event`.

    Raises:
        InvalidAddress: The address is none.
        InvalidOption: An option is out of bounds, unknown or does not apply.
        AddressInUse: Somebody else listens there.
        CannotBind: The address cannot be opened.
    """
    on_event = changes.pop("on_event", None)
    listener = Listener(name, address, handler, merge_options(options, changes), on_event=on_event)
    try:
        async with anyio.create_task_group() as task_group:
            await task_group.start(listener.run)
            yield listener
            await listener.close()
    except BaseExceptionGroup as group:  # a SystemExit or KeyboardInterrupt of the block is to arrive as one
        if len(group.exceptions) == 1:
            raise group.exceptions[0] from group.exceptions[0].__cause__
        raise
