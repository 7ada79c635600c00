"""A listener: one opened address, from its first socket to the end of its last connection."""

from __future__ import annotations

import logging
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import anyio
from anyio.lowlevel import checkpoint

from esockd_core._address import parse_address
from esockd_core._admission import Admission
from esockd_core._control import UNSET, Unset
from esockd_core._ending import Ending, drain_connections, end_connections
from esockd_core._errors import InvalidOption, ListenerClosed
from esockd_core._inspected import Inspected
from esockd_core._intake import Intake
from esockd_core._limits import clamp_max_connections
from esockd_core._log import ListenerLog
from esockd_core._option_changes import merge_options, plan_options
from esockd_core._options import DEFAULT_MAX_CONNECTIONS, ListenerOptions
from esockd_core._service import Service
from esockd_core._sockets import require_applicable
from esockd_core._stats import Counters
from esockd_core._transports import open_carrier
from esockd_core._upgrade import plan_upgrades

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from anyio.abc import TaskStatus

    from esockd_core._address import Address
    from esockd_core._events import ConnectionEvent
    from esockd_core._handler import Handler
    from esockd_core._inspection import ListenerState
    from esockd_core._option_changes import OptionPlan
    from esockd_core._sockets import ListeningSockets
    from esockd_core._tls_options import TlsOptions

logger = logging.getLogger("esockd_core")

TICK_S: Final = 0.09  # between two looks at timeouts and lag; 0.1 would march in step with anyio.wait_all_tasks_blocked
READ_PASSES: Final = 8  # of the event loop, before a drain: who was queued is registered, read from and seen to finish


class Listener(Inspected):
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
        _require_stream(self.address)
        options = _fit(options or ListenerOptions())
        self._access = options.access_list()
        options = replace(options, access_rules=self._access)  # what is asked for its rules has the live ones
        upgrades = plan_upgrades(self.address, options)
        self._admission = Admission(options, self._access, counters or Counters(), ListenerLog(name))
        self._service = Service(name, handler, options, self._admission, on_event)
        self._service.upgrades = upgrades
        self._intake = Intake(self._service, self._fail)
        self._state: ListenerState = "new"
        self._was_run = False
        self._opened_at: float | None = None
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
            await self._intake.open(self.address)
            async with open_carrier(self._service) as carrier:
                try:
                    async with anyio.create_task_group() as task_group:
                        self._intake.attach(carrier, task_group)
                        task_group.start_soon(self._keep_house)
                        self._accept()
                        self._opened_at = time.time()
                        task_status.started(self)
                        await self._serve()
                        task_group.cancel_scope.cancel()
                finally:
                    with anyio.CancelScope(shield=True):
                        await end_connections(self._service)
        finally:
            self._state = "closed"
            self._intake.close()
            self._closed.set()
        if self._failure is not None:
            raise self._failure

    async def _serve(self) -> None:
        await self._end_requested.wait()
        async with self._changing:
            self._state = "draining"
            await self._intake.finish()
        for _ in range(READ_PASSES):
            await checkpoint()
        await drain_connections(self._service, self._ending)

    def _accept(self) -> None:
        self._intake.start()
        self._state = "running"

    def _fail(self, error: Exception) -> None:
        logger.error("listener %s: cannot accept any more: %r", self.name, error)
        self._failure = error  # raised by `run` once the connections have ended
        self._end_requested.set()

    async def _keep_house(self) -> None:
        """Look at timeouts and at the event loop's lag, a few times a second."""
        swept_at = anyio.current_time()
        while True:
            # From now, not from when it was due: a lag holds good until the next look, a tick later.
            due = anyio.current_time() + TICK_S
            await anyio.sleep_until(due)
            now = anyio.current_time()
            self._admission.loop_lag_s = lag_s = max(0.0, now - due)
            self._service.counters.loop_lags.note(lag_s)
            try:
                await self._service.sweep(now)
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
            await self._intake.stop()

    async def resume(self) -> None:
        """Accept again.

        Raises:
            ListenerClosed: The listener is not open, or draining, or has lost its address in `reopen`.
        """
        async with self._changing:
            self._require_open()
            if not self._intake.is_open:
                raise ListenerClosed(f"listener {self.name} could not be reopened: try `reopen` again")
            if self._state == "suspended":
                self._accept()

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
            fresh = await self._intake.open_sockets(wanted) if moves else None
            await self._replace_sockets(wanted, fresh)

    async def _replace_sockets(self, address: Address, fresh: ListeningSockets | None) -> None:
        place = address
        if fresh is None and address.port == 0:
            place = replace(address, port=self.port or 0)
        was_running, self._state = self._state == "running", "suspended"
        try:
            await self._intake.replace(place, fresh)
            self.address = address
        finally:
            # Cancelled before the old sockets were closed, it goes on with them.
            if was_running and self._intake.is_open:
                self._accept()

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
        tls = replace(self.options.tls) if options is None else options  # a copy reads the files anew
        upgrades.context = tls.context
        self._service.options = replace(self.options, tls=tls)

    async def plan_options(self, **changes: Any) -> OptionPlan:
        """Say what `set_options` would do; see `ListenerControl`."""
        new = self._checked(merge_options(self.options, changes))
        return plan_options(self.options, new)

    async def set_options(self, *, reopen: bool = False, **changes: Any) -> OptionPlan:
        """Change single options; see `ListenerControl`."""
        async with self._changing:
            return await self._change_options(merge_options(self.options, changes), reopen=reopen)

    async def reset_options(self, *, reopen: bool = False, **options: Any) -> OptionPlan:
        """Replace all options; see `ListenerControl`."""
        async with self._changing:
            return await self._change_options(merge_options(None, options), reopen=reopen)

    def _checked(self, options: ListenerOptions) -> ListenerOptions:
        """Options that are fit for this listener.

        Raises:
            InvalidOption: They are not.
        """
        plan_upgrades(self.address, options)
        require_applicable(self.address, options.tcp, options.unix)
        return _fit(options)

    async def _change_options(self, new: ListenerOptions, *, reopen: bool) -> OptionPlan:
        """Let other options be in force: first all that may fail, then all that cannot."""
        self._require_open()
        old, new = self.options, self._checked(new)
        plan = plan_options(old, new)
        if plan.needs_reopen and not reopen:
            raise InvalidOption(
                f"{', '.join(plan.needs_reopen)}: this takes new listening sockets. Allow it with reopen=True; "
                "connections stay open."
            )
        rules = new.access_list() if "access_rules" in plan else None
        new = replace(new, access_rules=self._access)
        self._service.options = new
        try:
            if plan.needs_reopen:
                await self._replace_sockets(self.address, None)
            elif self._intake.is_open:
                await self._adjust_intake(old, plan)
        except BaseException:
            self._service.options = old
            raise
        if rules is not None:
            self._access.replace(rules.rules, rules.default)
        if "tls" in plan or "proxy_protocol" in plan:
            self._service.upgrades = plan_upgrades(self.address, new)
        self._admission.configure(new, self._service.connections.values())
        self._ending.timeout_s = new.shutdown_timeout
        self._service.announce_change()
        return plan

    async def _adjust_intake(self, old: ListenerOptions, plan: OptionPlan) -> None:
        acceptors = None
        if "acceptors" in plan or "when_full" in plan or "when_limited" in plan:
            acceptors = self._intake.make_acceptors()
        if "tcp" in plan:
            try:
                self._intake.set_socket_options(old)
            except BaseException:
                if acceptors is not None:
                    acceptors.close()
                raise
        if acceptors is not None:
            with anyio.CancelScope(shield=True):  # or nobody would accept any more
                await self._intake.exchange_acceptors(acceptors, running=self._state == "running")

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
