"""A listener of one worker: it accepts on sockets that its parent has opened, by limits that hold over all workers."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from esockd_cidr import AccessList
from esockd_core._errors import ListenerClosed
from esockd_core._listening.intake import Intake
from esockd_core._listening.listener import Listener
from esockd_core._sockets.opening import ListeningSockets
from esockd_core.workers._admission import SharedAdmission
from esockd_core.workers._counters import SharedCounters, SlotCounters

if TYPE_CHECKING:
    from esockd_core._address import Address
    from esockd_core._admission.admission import Admission
    from esockd_core._connection.handler import Handler
    from esockd_core._options.listener import ListenerOptions
    from esockd_core.workers._memory import ListenerMemory
    from esockd_core.workers._orders import ListenerOrder


class SharedListener(Listener):
    """One worker's part of a listener.

    Args:
        order: What the parent told.
        handler: The handler.
        options: The options, with the access rules.
        memory: The memory of the listener.
        slot: The slot of this process.
    """

    def __init__(
        self, order: ListenerOrder, handler: Handler, options: ListenerOptions, memory: ListenerMemory, slot: int
    ) -> None:
        self._memory = memory
        self._slot = slot
        self._descriptors = order.descriptors
        self._begins_with = order.rehearsal
        self._counters = SharedCounters(SlotCounters(self._memory, slot))
        super().__init__(
            order.name, order.address, handler, options, suspended=order.is_suspended, counters=self._counters
        )

    @property
    def handler(self) -> Handler:
        """What serves new connections."""
        return self._site.handler

    def _fit(self, options: ListenerOptions) -> ListenerOptions:
        return (
            options  # the parent has bounded `max_connections` for all; `SharedAdmission` bounds the part of this one
        )

    def _make_admission(self, options: ListenerOptions) -> Admission:
        site = self._site
        self._shared_admission = SharedAdmission(
            options, self._access, site.waiting, site.counters, site.log, memory=self._memory, slot=self._slot
        )
        return self._shared_admission

    def _make_intake(self) -> Intake:
        return Intake(self._site, self._admission, self._fail, self._adopt)

    async def _adopt(self, address: Address, *_options: object) -> ListeningSockets:
        sockets = [socket.socket(fileno=descriptor) for descriptor in self._descriptors]  # closed with the listener
        return ListeningSockets(sockets, address.transport)

    def _begin(self) -> None:
        if (rehearsal := self._begins_with) is not None:
            changed = self._changed_by(rehearsal.changes)
            self._begin_rehearsal(AccessList(rehearsal.rules), rehearsal.changes, changed, rehearsal.duration)
        super()._begin()

    async def reopen(self, address: object = None) -> None:
        """Refuse: the parent has opened the sockets."""
        raise ListenerClosed(
            f"listener {self.name} has its sockets from another process (for {address or self.address})"
        )

    async def forget(self) -> None:
        """Give back its memory, once it has closed and its parent has its last numbers."""
        self._counters.close()
        self._shared_admission.close()
        self._memory.close()

    async def retire(self) -> None:
        """Close the listener, but leave the clients in the queue to the worker that takes its place."""
        self._intake.leaves_queue = True
        await self.close()
