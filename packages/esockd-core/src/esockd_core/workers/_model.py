"""What the parent knows of one listener: what each new worker is told, and the numbers of those that have ended."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import anyio

from esockd_core._address import parse_address
from esockd_core._admission.rehearsed_changes import changed_options
from esockd_core._connection.entrance import plan_entrance
from esockd_core._errors import EsockdError, InvalidOption, ListenerClosed
from esockd_core._options.applicable import require_applicable_kind
from esockd_core._options.listener import DEFAULT_MAX_CONNECTIONS, ListenerOptions
from esockd_core._platform.open_files import clamp_max_connections
from esockd_core._platform.socket_queues import accept_queue
from esockd_core._sockets.opening import require_applicable
from esockd_core._sockets.shared import open_shared_sockets
from esockd_core._stats.reasons import WORKER_LOST
from esockd_core.control.values import ListenerStatus
from esockd_core.workers._counters import SlotCounters
from esockd_core.workers._limits import Limits, units_of
from esockd_core.workers._merging import NO_STATS, ended, merge_stats, with_counters
from esockd_core.workers._orders import ListenerOrder, RehearsalOrder

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from esockd_cidr import AccessList
    from esockd_core._address import Address
    from esockd_core._sockets.shared import SharedSockets
    from esockd_core._stats.counters import Stats
    from esockd_core._stats.state import ListenerState
    from esockd_core.workers._memory import ListenerMemory
    from esockd_core.workers._process import WorkerProcess
    from esockd_core.workers._shared_rehearsal import SharedRehearsal

logger = logging.getLogger("esockd_core")

LOCK_TRIES: Final = 2_000
LOCK_PAUSE_S: Final = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerListener:
    """A listener for `Workers` to serve.

    Attributes:
        name: Its name.
        address: Where to listen; see `parse_address`.
        handler: Where each worker imports the handler from, as "package.module:name". A class of callbacks is
            instantiated.
        handler_arguments: None if `handler` is the handler itself. Otherwise it is a function that each worker calls
            with these arguments, and that returns the handler.
        options: Its options. Limits hold over all workers. Functions and objects in it are imported by each worker.
    """

    name: str
    address: object
    handler: str
    handler_arguments: tuple[Any, ...] | None = None
    options: ListenerOptions | None = None

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from all others: name and address.

        Raises:
            InvalidAddress: If the address is not valid.
        """
        return self.name, str(parse_address(self.address))


class Model:
    """One listener as its parent knows it.

    Args:
        given: What the program asked for.
        number: Its number among all that the program has opened.
        worker_count: How many workers there are.
        memory: Its shared memory.
        before: The counters to continue with; None to begin at 0.

    Raises:
        InvalidAddress: If the address is not valid.
        InvalidOption: If an option does not apply, or exists in one process only.
    """

    def __init__(
        self, given: WorkerListener, number: int, worker_count: int, memory: ListenerMemory, before: Stats | None = None
    ) -> None:
        self.name: str = given.name
        self.address: Address = parse_address(given.address)
        self.number = number
        self.handler: str = given.handler
        self.arguments: tuple[Any, ...] | None = given.handler_arguments
        self.handler_path: str = given.handler
        self.state: ListenerState = "new"
        self.opened_at: float | None = None
        self.version = 0
        self.memory = memory
        self._worker_count = worker_count
        if self.address.is_datagram:
            reason = "workers serve tcp, tls and unix addresses"
            raise InvalidOption(reason, option="address", value=str(self.address))
        if self.address.socket is not None:
            hint = f"Give its descriptor: fd:{self.address.socket.fileno()}."
            raise InvalidOption("a socket object stays in its process", option="address", value=..., hint=hint)
        self.options: ListenerOptions = self.checked(given.options or ListenerOptions())
        self.access: AccessList = self.options.access_list()
        self.sockets: SharedSockets | None = None
        self.rehearsal: SharedRehearsal | None = None
        self._limits = Limits(memory)
        self._imagined = Limits(memory.imagined)
        self._rates: ListenerOptions | None = None  # the options whose rates are in force
        self._ended: Stats = before or NO_STATS

    def checked(self, options: ListenerOptions) -> ListenerOptions:
        """Options that have been checked for this listener and for several workers.

        Raises:
            InvalidOption: If they are not valid.
        """
        if options.limiter is not None:
            hint = "Set max_conn_rate, which holds over all workers."
            raise InvalidOption("it lives in one process, and the workers are several", option="limiter", hint=hint)
        plan_entrance(self.address, options)
        require_applicable(self.address, options.tcp, options.unix, options.udp)
        require_applicable_kind(self.address, options)
        for name in ("max_conn_rate", "max_conn_rate_per_source"):
            units_of(options, name)
        most, warning = clamp_max_connections(
            options.max_connections,
            explicit=options.max_connections != DEFAULT_MAX_CONNECTIONS,
            worker_count=self._worker_count,
        )
        if warning is not None:
            logger.warning(warning)
        return replace(options, max_connections=most)

    async def open(self) -> None:
        """Open the sockets, and put the rates in force.

        Raises:
            AddressInUse: If somebody else listens there.
            CannotBind: If the address cannot be opened.
        """
        self.sockets = await open_shared_sockets(self.address, self._worker_count, self.options.tcp, self.options.unix)
        await self.put_rates(self.options)

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from all others: name and address."""
        return self.name, str(self.address)

    def close_sockets(self) -> None:
        """Close the sockets."""
        if self.sockets is not None:
            self.sockets.close()
            self.sockets = None

    def give_up_sockets(self) -> None:
        """Close the sockets, and those copies of them that a worker has which does not answer."""
        if self.sockets is not None:
            self.sockets.give_up()
            self.sockets = None

    async def put_rates(self, new: ListenerOptions) -> None:
        """Put other rates in force, for all workers at once.

        Raises:
            EsockdError: If a worker does not let go of the lock.
        """
        await self._take_lock()
        with self.memory.lock:
            old = self._rates
            self._limits.put(new, old)
            self._rates = new
            if old is not None and self.rehearsal is not None and self.rehearsal.is_running:
                changes = self.rehearsal.changes.options
                with suppress(InvalidOption):  # it does not fit any more, and is about to end
                    self._imagined.put(self.changed(new, changes), self.changed(old, changes))

    async def _take_lock(self) -> None:
        for _ in range(LOCK_TRIES):
            if self.state == "closed":  # and its memory may be gone
                raise ListenerClosed(f"listener {self.name} is closed: open a new one")
            if self.memory.lock.take_nowait():
                return
            await anyio.sleep(LOCK_PAUSE_S)  # this process must not wait for one that may have stopped
        raise EsockdError(f"listener {self.name}: a worker has stopped while it judged a client; nothing was changed")

    def order(self, share: int) -> ListenerOrder:
        """What a worker is told of it."""
        if self.sockets is None:
            raise AssertionError("it is not open")
        return ListenerOrder(
            number=self.number,
            name=self.name,
            address=self.address,
            handler=self.handler,
            arguments=self.arguments,
            options=replace(self.options, access_rules=()),
            rules=rule_texts(self.access),
            memory=self.memory.whole.descriptor,
            descriptors=tuple(sock.fileno() for sock in self.sockets.shares[share]),
            is_suspended=self.state == "suspended",
            rehearsal=self._rehearsal_order(),
        )

    def status(self) -> ListenerStatus:
        """Name, state, addresses and handler."""
        return ListenerStatus(
            name=self.name,
            address=str(self.address),
            state=self.state,
            addresses=() if self.sockets is None else self.sockets.addresses,
            port=None if self.sockets is None else self.sockets.port,
            opened_at=self.opened_at,
            handler=self.handler_path,
        )

    # Rehearsals

    def changed(self, options: ListenerOptions, changes: Mapping[str, Any]) -> ListenerOptions:
        """Options with the changes of a rehearsal.

        Raises:
            InvalidOption: If they do not fit, or if one cannot be rehearsed.
        """
        return changed_options(options, changes, self.checked)

    async def imagine(self, changed: ListenerOptions) -> None:
        """Let the listener that a rehearsal imagines begin with the tokens of this one.

        Raises:
            EsockdError: If a worker does not let go of the lock.
        """
        await self._take_lock()
        with self.memory.lock:
            memory = self.memory.imagined
            memory.begin_as(self.memory)
            self._imagined = Limits(memory)
            self._imagined.put(changed, self._rates)

    def _rehearsal_order(self) -> RehearsalOrder | None:
        rehearsal = self.rehearsal
        if rehearsal is None or not rehearsal.is_running:
            return None
        changes = rehearsal.changes
        left_s = rehearsal.duration - rehearsal.elapsed_s
        return RehearsalOrder(rules=changes.rules, changes=changes.options, duration=left_s)

    # Numbers

    def stats(self, live: Iterable[WorkerProcess]) -> Stats:
        """The counters of all workers that there are and were."""
        known = [
            with_counters(each.stats[self.number], SlotCounters(self.memory, each.slot))
            for each in live
            if self.number in each.stats
        ]
        length, limit = self._queue()
        return replace(
            merge_stats([self._ended, *known]),
            max_connections=self.options.max_connections,
            accept_queue_length=length,
            accept_queue_limit=limit,
        )

    def _queue(self) -> tuple[int | None, int | None]:
        queues = [accept_queue(sock) for sock in self.sockets.all_sockets()] if self.sockets is not None else []
        known = [queue for queue in queues if queue is not None]
        if not known or len(known) < len(queues):
            return None, None
        return sum(queue[0] for queue in known), sum(queue[1] for queue in known)

    def note_end(self, process: WorkerProcess) -> None:
        """Take over the counters of a process that has ended, and release what it held."""
        rehearsal = process.rehearsals.get(self.number)
        if rehearsal is not None and rehearsal.report is not None:
            rehearsal.whole.keep(rehearsal.report)
        self._keep_counters(process)
        SlotCounters(self.memory, process.slot).clear()
        self._limits.forget(process.slot)
        self._imagined.forget(process.slot)

    def settle(self, processes: Iterable[WorkerProcess]) -> None:
        """Take over the counters of the processes in which the listener has ended, and forget these."""
        self.state = "closed"
        for process in processes:
            self._keep_counters(process)

    def close_memory(self) -> None:
        """Give back its memory, once nobody asks for its limits any more."""
        self._imagined.close()
        self._limits.close()

    def _keep_counters(self, process: WorkerProcess) -> None:
        told = process.remove(self.number)
        if told is not None:
            known = with_counters(told, SlotCounters(self.memory, process.slot))
            self._ended = merge_stats([self._ended, ended(known, WORKER_LOST)])


def rule_texts(access: AccessList) -> tuple[str, ...]:
    """Access rules as workers are told them: their default is always to allow."""
    rules = tuple(str(rule) for rule in access.rules)
    return rules if access.default == "allow" else (*rules, "deny all")
