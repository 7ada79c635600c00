"""Datagram listeners on trio: one task reads each socket. Handlers are tasks of the listener's nursery.

A handler that waits for a datagram waits as `trio.lowlevel.wait_task_rescheduled` does, but makes nothing anew for it:
each connection keeps what it tells the scheduler, and all of them are woken with the same outcome.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from types import coroutine
from typing import TYPE_CHECKING, Any, Final

import outcome
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
    from collections.abc import AsyncIterator, Callable, Generator, Hashable

    from esockd_core._connection.driver import AnyDriver
    from esockd_core._connection.handler import Handler
    from esockd_core._connection.peers import SharedSocket
    from esockd_core._connection.port import DatagramPort
    from esockd_core._connection.site import Site

WOKEN: Final = outcome.Value(None)  # what a task is woken with that waits as below; an outcome can be unwrapped once


def request_to_wait(abort: Callable[[Any], Abort]) -> object:
    """What `wait_task_rescheduled` tells trio's scheduler. It may be told again for each wait."""
    wait = wait_task_rescheduled(abort)  # noqa: ASYNC105 - it is never to wait
    try:
        return wait.send(None)
    finally:
        wait.close()


class TrioDatagram(  # pyright: ignore[reportIncompatibleMethodOverride, reportIncompatibleVariableOverride]
    DatagramBase, HandledConnection
):
    """A datagram connection on trio."""

    __slots__ = ("_handler_running", "_scope", "_side", "_task", "_wait_request")

    def __init__(self, site: Site, port: SharedSocket, address: Any, key: Hashable, side: TrioSide) -> None:
        super().__init__(site, NOBODY, port, address, key)
        self._side = side
        self._task: trio.lowlevel.Task | None = None
        self._scope: trio.CancelScope | None = None
        self._handler_running = False
        self._wait_request: object = None  # made when the handler waits for the first time

    @coroutine
    def _receive_next(self, end: type[Exception] = StopAsyncIteration) -> Generator[Any, Any, bytes]:
        # What the base does, with its calls of the methods below written out, for each datagram.
        at_once: bytes | None = self._datagram
        if at_once is None and not (self._closing or self._receiver or self.draining) and self.driver.receives:
            self._iterates = end is StopAsyncIteration
            request = self._wait_request
            if request is None:
                self._wait_request = request = request_to_wait(self._give_up_waiting)
            self._receiver = current_task()
            sent = yield request
            if sent is not WOKEN:
                try:
                    sent.unwrap()
                finally:
                    del sent  # or the error that it raises would refer to itself
            self._unyielded = 0
            datagram = self._datagram
            if self._more is None and type(datagram) is bytes:
                self._datagram = self._sender = None
                return datagram
        received: bytes = yield from DatagramBase._receive(self, end)
        return received

    async def _receive(self, end: type[Exception] = StopAsyncIteration) -> bytes:
        return await self._receive_next(end)

    __anext__ = _receive_next

    async def send(self, item: bytes) -> None:
        # As above.
        if type(item) is bytes and self._unyielded < YIELD_EVERY and self.layer is None:
            self._unyielded += 1
            await checkpoint_if_cancelled()
            if self._closing:
                raise self._closed_error()
            try:
                self.port.sendto(item, self.address)
            except OSError as error:
                if not self._was_taken(item, error):
                    await DatagramBase.send(self, item)
                    return
            self.bytes_out += len(item)
            self.datagrams_out += 1
        else:
            await DatagramBase.send(self, item)

    def ended(self, reason: str) -> None:
        self._wait_request = None  # it refers to the connection, which would otherwise be left to the collector
        DatagramBase.ended(self, reason)

    @coroutine
    def _wait_for_input(self) -> Generator[Any, Any, None]:
        request = self._wait_request
        if request is None:
            self._wait_request = request = request_to_wait(self._give_up_waiting)
        self._receiver = current_task()
        sent = yield request
        if sent is not WOKEN:
            try:
                sent.unwrap()
            finally:
                del sent  # or the error that it raises would refer to itself

    def _give_up_waiting(self, _: Any) -> Abort:
        self._receiver = None
        return Abort.SUCCEEDED

    def _wake_receiver(self) -> None:
        task, self._receiver = self._receiver, None
        reschedule(task, WOKEN)

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
        if connection._datagram is not None:
            connection.keep(data)
            return
        # What `keep` does with the first one, without its calls.
        connection._datagram = data
        task = connection._receiver
        if task is not None:
            connection._receiver = None
            reschedule(task, WOKEN)


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

        def new_connection(port: SharedSocket, address: Any, key: Hashable) -> TrioDatagram:
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
