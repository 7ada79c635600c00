"""Datagram listeners on trio: one task reads each socket. Handlers are tasks of the listener's nursery."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio
from trio.lowlevel import Abort, checkpoint, checkpoint_if_cancelled, current_task, reschedule, wait_task_rescheduled

from esockd_core._connection.callback_driver import CallbackDriver
from esockd_core._connection.datagram import DatagramBase
from esockd_core._connection.driver import NOBODY
from esockd_core._connection.handler import CallbackHandler
from esockd_core._connection.receiving import YIELD_EVERY
from esockd_core._forwarding.datagram_relay import DatagramForwarding
from esockd_core._loops.datagram import Arrivals, DatagramCarrier
from esockd_core._loops.trio.handled import HandledConnection, HandlerDriver
from esockd_core._loops.trio.poller import CallbackPoller
from esockd_core._loops.trio.side import TrioSide, end_program

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Hashable

    from esockd_core._connection.driver import AnyDriver
    from esockd_core._connection.handler import Handler
    from esockd_core._connection.port import DatagramPort
    from esockd_core._connection.site import Site


class TrioDatagram(  # pyright: ignore[reportIncompatibleMethodOverride, reportIncompatibleVariableOverride]
    DatagramBase, HandledConnection
):
    """A datagram connection on trio."""

    __slots__ = ("_handler_running", "_scope", "_side", "_task")

    def __init__(self, site: Site, port: DatagramPort, address: Any, key: Hashable, side: TrioSide) -> None:
        super().__init__(site, NOBODY, port, address, key)
        self._side = side
        self._task: trio.lowlevel.Task | None = None
        self._scope: trio.CancelScope | None = None
        self._handler_running = False

    async def _wait_for_input(self) -> None:
        self._receiver = current_task()
        await wait_task_rescheduled(self._give_up_waiting)

    def _give_up_waiting(self, _: Any) -> Abort:
        self._receiver = None
        return Abort.SUCCEEDED

    def _wake_receiver(self) -> None:
        task, self._receiver = self._receiver, None
        reschedule(task)

    async def _checkpoint(self) -> None:
        if self._unyielded < YIELD_EVERY:
            self._unyielded += 1
            await checkpoint_if_cancelled()
        else:
            self._unyielded = 0
            await checkpoint()


class DatagramCoroutineDriver(HandlerDriver[TrioDatagram]):
    """Keeps datagrams until the handler receives them."""

    __slots__ = ()

    def data_received(self, connection: TrioDatagram, data: bytes) -> None:
        connection.keep(data)


class DatagramCallbackDriver(CallbackDriver[TrioDatagram]):
    """Calls the program's callbacks from the task that reads the socket."""

    __slots__ = ("_nursery",)

    def __init__(self, callbacks: CallbackHandler[Any], side: TrioSide) -> None:
        super().__init__(callbacks, end_program, side.context)
        self._nursery = side.nursery

    def lost(self, connection: TrioDatagram, broke: bool) -> None:
        # Not at once: the code that closed it may run inside a callback of this or another connection.
        self._nursery.start_soon(self._tell_lost, connection, broke)

    async def _tell_lost(self, connection: TrioDatagram, broke: bool) -> None:
        super().lost(connection, broke)


@asynccontextmanager
async def open_trio_datagrams(site: Site) -> AsyncIterator[TrioDatagramCarrier]:
    """Yield the carrier of a datagram listener; every handler is a task of its nursery."""
    async with trio.open_nursery() as nursery:
        poller = CallbackPoller(nursery)
        site.connector = DatagramForwarding(poller.add, poller.remove).connector
        side = TrioSide(nursery, poller, site.counters.accept_delays)

        def new_connection(port: DatagramPort, address: Any, key: Hashable) -> TrioDatagram:
            return TrioDatagram(site, port, address, key, side)

        def make_driver(handler: Handler) -> AnyDriver:
            if isinstance(handler, CallbackHandler):
                return DatagramCallbackDriver(handler, side)
            return DatagramCoroutineDriver(handler, side)

        yield TrioDatagramCarrier(site, Arrivals(site, new_connection, make_driver))
        nursery.cancel_scope.cancel()  # what `end_connections` gave up on


class TrioDatagramCarrier(DatagramCarrier):
    """Reads the sockets of one datagram listener on trio."""

    async def read(self, port: DatagramPort, listening: socket.socket) -> OSError:
        while True:
            await trio.lowlevel.wait_readable(listening)
            try:
                port.on_readable()
            except OSError as error:
                return error
