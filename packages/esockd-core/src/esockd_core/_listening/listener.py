"""A listener: one opened address, from its first socket to the end of its last connection."""

from __future__ import annotations

import logging
import time
from contextlib import nullcontext, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Unpack

import anyio
from anyio.lowlevel import checkpoint

from esockd_core._address import parse_address
from esockd_core._admission.admission import Admission
from esockd_core._admission.gate import Gate
from esockd_core._admission.shared_limit import SharedLimit
from esockd_core._connection.entrance import plan_entrance
from esockd_core._connection.handler import checked_handler
from esockd_core._connection.site import Site
from esockd_core._errors import InvalidOption, ListenerClosed
from esockd_core._forwarding.handler import ForwardHandler
from esockd_core._listening.accepting import Accepting
from esockd_core._listening.audited import audited
from esockd_core._listening.closing import Closing
from esockd_core._listening.datagram_intake import DatagramIntake
from esockd_core._listening.drain import Ending, drain_connections, end_connections
from esockd_core._listening.intake import Intake
from esockd_core._listening.sweeper import Sweeper
from esockd_core._options.applicable import require_applicable_kind
from esockd_core._options.changes import merge_options, plan_options
from esockd_core._options.dtls import DtlsOptions
from esockd_core._options.listener import DEFAULT_MAX_CONNECTIONS, ListenerOptions
from esockd_core._options.plain import import_path
from esockd_core._platform.open_files import clamp_max_connections
from esockd_core._sockets.opening import require_applicable
from esockd_core._stats.counters import Counters
from esockd_core._stats.log import ListenerLog
from esockd_core.control.handler_path import import_handler
from esockd_core.control.interface import UNSET, Unset

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from anyio.abc import TaskStatus

    from esockd_core._address import Address
    from esockd_core._connection.events import ConnectionEvent
    from esockd_core._connection.handler import Handler
    from esockd_core._options.arguments import OptionArguments
    from esockd_core._options.changes import OptionPlan
    from esockd_core._options.tls import TlsOptions
    from esockd_core._stats.state import ListenerState

logger = logging.getLogger("esockd_core")

TICK_S: Final = 0.09  # between two looks at timeouts and lag; 0.1 would march in step with anyio.wait_all_tasks_blocked
ASK_S: Final = 1.0  # for a round trip, a handshake and a busy client
READ_PASSES: Final = 8  # of the event loop, before a drain: who was queued is registered, read from and seen to finish


class Listener(Closing, Accepting):
    """One opened address and the connections it accepted.

    Run it in a task group of your own, `await task_group.start(listener.run)`, or let `open_listener` or a `Server` do
    so. An error of one connection never affects another.

    Args:
        name: Its name in logs, statistics and control.
        address: Where to listen; see `parse_address` for the grammar.
        handler: A coroutine function that is called with each connection, or a `CallbackHandler`.
        options: Its options; see `ListenerOptions`.
        on_event: Called at the start and at the end of each connection.
        suspended: Whether it opens its address but accepts nobody until `resume`.
        counters: Counters to continue with. A `Server` passes those of a closed listener to the next of its name.

    Raises:
        InvalidAddress: If the address is not valid.
        InvalidOption: If an option is out of bounds or does not apply.
    """

    def __init__(
        self,
        name: str,
        address: object,
        handler: Handler,
        options: ListenerOptions | None = None,
        *,
        on_event: Callable[[ConnectionEvent], None] | None = None,
        suspended: bool = False,
        counters: Counters | None = None,
    ) -> None:
        self.name = name
        self.address: Address = parse_address(address)
        options = self._fit(options or ListenerOptions())
        require_applicable_kind(self.address, options)
        self._handler_path = import_path(_checked_for(self.address, handler))
        self._access = options.access_list()
        options = replace(options, access_rules=self._access)  # what is asked for its rules has the live ones
        entrance = plan_entrance(self.address, options)
        counters, log = counters or Counters(), ListenerLog(name)
        self._site = site = Site(name, handler, options, counters, log, on_event=on_event)
        site.entrance = entrance
        if options.dtls is not None:
            from esockd_core._connection.dtls import DtlsEntrance  # noqa: PLC0415 (an extra)

            site.dtls = dtls = DtlsEntrance(site, options.dtls)
            site.doorkeeper = dtls.doorkeeper
        self._admission = self._make_admission(options)
        site.judge, site.registry.release = self._admission, self._admission.release
        self._shared_limit = SharedLimit(name, self._admission)
        self._gate = Gate(self._admission, site.registry)
        self._sweeper = Sweeper(site)
        self._intake = self._make_intake()
        self._state: ListenerState = "new"
        self._begins_suspended = suspended
        self._was_run = False
        self._opened_at: float | None = None
        self._failure: Exception | None = None
        self._ending = Ending(options.shutdown_timeout)
        self._rehearsal = None
        self._changing = anyio.Lock()  # one change of state at a time
        self._claim_address: Callable[[Address], AbstractContextManager[None]] = lambda _: nullcontext()  # see `Server`
        self._end_requested = anyio.Event()
        self._deaf = anyio.Event()
        self._closed = anyio.Event()

    # What a process that shares its address with others does in another way

    def _fit(self, options: ListenerOptions) -> ListenerOptions:
        return options if self.address.is_datagram else _fit(options)  # their peers take no descriptors

    def _make_admission(self, options: ListenerOptions) -> Admission:
        return Admission(options, self._access, self._site.waiting, self._site.counters, self._site.log)

    def _make_intake(self) -> Intake:
        kind = DatagramIntake if self.address.is_datagram else Intake
        return kind(self._site, self._admission, self._fail)

    # Running

    async def run(self, *, task_status: TaskStatus[Listener] = anyio.TASK_STATUS_IGNORED) -> None:
        """Open the address, serve it until the listener is closed, and end every connection.

        Args:
            task_status: Told when the listener accepts, or could: `listener = await task_group.start(listener.run)`.

        Raises:
            AddressInUse: If somebody else listens there.
            CannotBind: If the address cannot be opened.
            OSError: If the listening socket failed for good.
        """
        if self._was_run:
            raise ListenerClosed(f"listener {self.name} was run already: make a new one")
        self._was_run = True
        try:
            await self._intake.open(self.address)
            async with self._intake.open_carrier(self._gate) as carrier:
                try:
                    async with anyio.create_task_group() as task_group:
                        self._intake.attach(carrier, task_group)
                        task_group.start_soon(self._keep_house)
                        await self._shared_limit.begin(task_group)
                        self._begin()
                        self._opened_at = time.time()
                        task_status.started(self)
                        await self._serve()
                        task_group.cancel_scope.cancel()
                finally:
                    with anyio.CancelScope(shield=True):
                        await end_connections(self._site)
        finally:
            self._state = "closed"
            self._end_rehearsal("the listener was closed")
            self._site.log.tell_left_out(is_end=True)
            self._intake.close()
            self._deaf.set()
            self._closed.set()
        if self._failure is not None:
            raise self._failure

    async def _serve(self) -> None:
        await self._end_requested.wait()
        async with self._changing:
            self._state = "draining"
            is_replaced = self._intake.leaves_queue or self._intake.is_left
            await self._intake.finish()
        self._deaf.set()
        if is_replaced and not self.address.is_datagram:
            await self._let_the_last_ask()
        for _ in range(READ_PASSES):
            await checkpoint()
        await drain_connections(self._site, self._ending)

    async def _let_the_last_ask(self) -> None:
        """Give clients that were accepted just now, and not by the successor, the time to send what they came for."""
        with anyio.move_on_after(ASK_S):
            while self._site.registry and self._ending.timeout_s != 0:
                await self._site.registry.changed()

    @property
    def failure(self) -> Exception | None:
        """Why it cannot accept any more and closes; None while nothing is wrong with its sockets."""
        return self._failure

    def _fail(self, error: Exception) -> None:
        logger.error("listener %s: cannot accept any more: %r", self.name, error)
        self._failure = error  # raised by `run` once the connections have ended
        self._end_requested.set()

    async def _keep_house(self) -> None:
        """Look at timeouts and at the event loop's lag, a few times a second."""
        while True:
            # From now, not from when it was due: a lag counts until the next look, a tick later.
            due = anyio.current_time() + TICK_S
            await anyio.sleep_until(due)
            now = anyio.current_time()
            self._admission.loop_lag_s = lag_s = max(0.0, now - due)
            self._site.counters.loop_lags.note(lag_s)
            self._site.counters.lifetimes.settle()
            self._look_at_rehearsal(lag_s)
            try:
                await self._sweeper.sweep(now, lag_s)
            except Exception:
                with suppress(Exception):  # of a log that cannot be written
                    logger.exception("listener %s: looking at timeouts failed; the next look is due", self.name)

    # Changing

    @audited
    async def set_handler(self, handler: Handler | str) -> None:
        """Serve new connections by another handler. Open ones keep theirs.

        Args:
            handler: The handler, or where to import it from, as "package.module:name".

        Raises:
            InvalidOption: If no handler is found there.
        """
        found = import_handler(handler) if isinstance(handler, str) else handler
        self._site.handler = _checked_for(self.address, found)
        self._handler_path = import_path(found)

    @audited
    async def set_tls(self, options: TlsOptions | DtlsOptions | None = None) -> None:
        """Use other TLS or DTLS options for new connections, or read the files again. Open connections go on unchanged.

        It blocks while it reads the files, which is rare and quick.

        Args:
            options: The new options; None reads the files of those in force again.

        Raises:
            InvalidOption: If a file is missing, unreadable or does not match, which leaves the ones in force. Also if
                the listener does not speak TLS.
        """
        async with self._changing:
            old = self.options.tls or self.options.dtls
            if old is None:
                raise InvalidOption(f"listener {self.name} on {self.address} speaks no TLS", option="tls")
            new = replace(old) if options is None else options  # a copy reads the files anew
            if type(new) is not type(old):
                raise InvalidOption(f"it takes {type(old).__name__}", option="tls", value=new)
            site = self._site
            if isinstance(new, DtlsOptions):
                site.options = replace(self.options, dtls=new)
                if site.dtls is not None:
                    site.dtls.use(new)
            else:
                site.options = replace(self.options, tls=new)
                site.entrance = plan_entrance(self.address, site.options)

    async def plan_options(self, **changes: Unpack[OptionArguments]) -> OptionPlan:
        """Say what `set_options` would do; see `ListenerControl`."""
        new = self._checked(merge_options(self.options, changes))
        return plan_options(self.options, new)

    @audited
    async def set_options(self, *, reopen: bool = False, **changes: Unpack[OptionArguments]) -> OptionPlan:
        """Change single options; see `ListenerControl`."""
        async with self._changing:
            return await self._change_options(merge_options(self.options, changes), reopen=reopen)

    @audited
    async def reset_options(self, *, reopen: bool = False, **options: Unpack[OptionArguments]) -> OptionPlan:
        """Replace all options; see `ListenerControl`."""
        async with self._changing:
            return await self._change_options(merge_options(None, options), reopen=reopen)

    def _checked(self, options: ListenerOptions) -> ListenerOptions:
        """Options that have been checked for this listener.

        Raises:
            InvalidOption: If they are not.
        """
        plan_entrance(self.address, options)
        require_applicable(self.address, options.tcp, options.unix, options.udp)
        require_applicable_kind(self.address, options)
        return self._fit(options)

    async def _change_options(self, new: ListenerOptions, *, reopen: bool) -> OptionPlan:
        """Put other options in force: first every step that may fail, then those that cannot."""
        self._require_open()
        old, new = self.options, self._checked(new)
        plan = plan_options(old, new)
        if plan.needs_reopen and not reopen:
            hint = "Allow it with reopen=True; connections stay open."
            raise InvalidOption("this takes new listening sockets", option=", ".join(plan.needs_reopen), hint=hint)
        rules = new.access_list() if "access_rules" in plan else None
        new = replace(new, access_rules=self._access)
        self._site.options = new
        try:
            if plan.needs_reopen:
                await self._replace_sockets(self.address, None)
            elif self._intake.is_open:
                await self._adjust_intake(old, plan)
        except BaseException:
            self._site.options = old
            raise
        if rules is not None:
            self._access.replace(rules.rules, rules.default)
        if "tls" in plan or "proxy_protocol" in plan:
            self._site.entrance = plan_entrance(self.address, new)
        if "dtls" in plan and new.dtls is not None and self._site.dtls is not None:
            self._site.dtls.use(new.dtls)
        self._admission.configure(new, self._site.registry)
        self._rehearse_on()  # in the same step: a rehearsal relies on what the live admission has just said
        await self._shared_limit.follow()
        self._ending.timeout_s = new.shutdown_timeout
        self._site.registry.announce_change()
        return plan

    async def _adjust_intake(self, old: ListenerOptions, plan: OptionPlan) -> None:
        acceptors = None
        if "acceptors" in plan or "when_full" in plan or "when_limited" in plan:
            acceptors = self._intake.make_acceptors()
        if "tcp" in plan or "udp" in plan:
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

        It stops accepting, serves the clients that are already queued, sets `draining` on each connection and asks its
        handler to end. A handler that has not ended after `timeout` seconds is cancelled. A second later its socket is
        reset.

        Args:
            timeout: Seconds for each handler; None is for ever, 0 at once; `shutdown_timeout` when not given.
            rate: Connections asked in a second, so that clients do not all come back at once; None is all at once.
                Asking again while it drains can hurry it, but never slow it down.

        Raises:
            InvalidOption: If timeout or rate is not a number in its bounds.
            ListenerClosed: If the listener was never opened.
        """
        if not self._was_run:  # one that is just being opened is closed once it is
            raise ListenerClosed(f"listener {self.name} is not open")
        given = self.options.shutdown_timeout if isinstance(timeout, Unset) else timeout
        self._ending.ask(given, rate, again=self._end_requested.is_set())
        self._site.registry.announce_change()
        self._end_requested.set()
        self._intake.give_up_opening()
        await self._closed.wait()


def _checked_for(address: Address, handler: Handler) -> Handler:
    if isinstance(handler, ForwardHandler):
        handler.check_listener(address)
    return checked_handler(handler)


def _fit(options: ListenerOptions) -> ListenerOptions:
    """Bound `max_connections` by the open-file limit."""
    explicit = options.max_connections != DEFAULT_MAX_CONNECTIONS
    most, warning = clamp_max_connections(options.max_connections, explicit=explicit)
    if warning is not None:
        logger.warning(warning)
    return replace(options, max_connections=most)
