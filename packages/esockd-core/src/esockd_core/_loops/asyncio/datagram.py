"""Datagram listeners on asyncio and uvloop: the event loop tells that a socket is readable, and Python reads it.

asyncio's own datagram transport reads one datagram a wake-up, and uvloop's has no bound. A connection has one waiter,
and its handler runs in a native task.
"""

from __future__ import annotations

import asyncio
from asyncio import InvalidStateError, current_task
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from weakref import ref

from esockd_core._connection.callback_driver import CallbackDriver
from esockd_core._connection.datagram import DatagramBase
from esockd_core._connection.driver import NOBODY
from esockd_core._connection.handler import CallbackHandler
from esockd_core._connection.receiving import YIELD_EVERY
from esockd_core._forwarding.datagram_relay import DatagramForwarding
from esockd_core._loops.asyncio.cancellation import scoped_tasks
from esockd_core._loops.asyncio.handled import HandledConnection, HandlerDriver
from esockd_core._loops.asyncio.side import AsyncioSide
from esockd_core._loops.datagram import Arrivals, DatagramCarrier

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Hashable

    from esockd_core._connection.driver import AnyDriver
    from esockd_core._connection.handler import Handler
    from esockd_core._connection.port import DatagramPort
    from esockd_core._connection.site import Site
    from esockd_core._forwarding.datagram_relay import Readable


class AsyncioDatagram(  # pyright: ignore[reportIncompatibleMethodOverride, reportIncompatibleVariableOverride]
    DatagramBase, HandledConnection
):
    """A datagram connection on asyncio or uvloop."""

    __slots__ = ("_side", "_task")

    def __init__(self, site: Site, port: DatagramPort, address: Any, key: Hashable, side: AsyncioSide) -> None:
        DatagramBase.__init__(self, site, NOBODY, port, address, key)  # half the cost of super(), for each peer
        self._side = side
        self._task: asyncio.Task[object] | None = None

    async def _receive(self, end: type[Exception] = StopAsyncIteration) -> bytes:
        # What the base does, with its calls of the methods below written out, for each datagram.
        at_once: bytes | None = self._datagram
        if at_once is None and not (self._closing or self._receiver or self.draining) and self.driver.receives:
            self._iterates = end is StopAsyncIteration
            self._receiver = waiter = self._side.loop.create_future()
            try:
                await waiter
            finally:
                self._receiver = None
            self._unyielded = 0
            datagram = self._datagram
            if self._more is None and type(datagram) is bytes:
                self._datagram = self._sender = None
                return datagram
        return await DatagramBase._receive(self, end)

    __anext__ = _receive

    async def send(self, item: bytes) -> None:
        # As above.
        unyielded = self._unyielded
        if (
            type(item) is bytes
            and unyielded < YIELD_EVERY
            and not self._closing
            and ref(current_task(self._side.loop)) not in scoped_tasks
        ):
            self._unyielded = unyielded + 1
            sealed = item if self.layer is None else self.layer.seal(self, item)
            try:
                self.port.sendto(sealed, self.address)
            except OSError as error:
                is_sent = self._was_taken(sealed, error)
            else:
                is_sent = True
            if is_sent:
                self.bytes_out += len(item)
                self.datagrams_out += 1
                return
        await DatagramBase.send(self, item)

    async def _wait_for_input(self) -> None:
        self._receiver = waiter = self._side.loop.create_future()
        try:
            await waiter
        finally:
            self._receiver = None

    def _wake_receiver(self) -> None:
        receiver = self._receiver
        if receiver is not None and not receiver.done():
            receiver.set_result(None)


class DatagramCoroutineDriver(HandlerDriver[AsyncioDatagram]):
    """Keeps datagrams until the handler receives them."""

    __slots__ = ()

    def data_received(self, connection: AsyncioDatagram, data: bytes) -> None:
        if connection._datagram is None:
            connection._datagram = data
            if connection._receiver is not None:
                try:  # noqa: SIM105 (a context manager would cost as much as this method)
                    connection._receiver.set_result(None)
                except InvalidStateError:
                    pass  # it was cancelled, or woken already
        else:
            connection.keep(data)


class DatagramCallbackDriver(CallbackDriver[AsyncioDatagram]):
    """Calls the program's callbacks."""

    __slots__ = ("_loop",)

    def __init__(self, callbacks: CallbackHandler[Any], side: AsyncioSide) -> None:
        super().__init__(callbacks, side.end_program, side.context)
        self._loop = side.loop

    def lost(self, connection: AsyncioDatagram, broke: bool) -> None:
        # Not at once: the code that closed it may run inside a callback of this or another connection.
        self._loop.call_soon(self._tell_lost, connection, broke)

    def _tell_lost(self, connection: AsyncioDatagram, broke: bool) -> None:
        super().lost(connection, broke)


@asynccontextmanager
async def open_asyncio_datagrams(site: Site) -> AsyncIterator[AsyncioDatagramCarrier]:
    """Yield the carrier of a datagram listener; native tasks need no context of their own."""
    side = AsyncioSide(site.name, site.counters.accept_delays)

    def new_connection(port: DatagramPort, address: Any, key: Hashable) -> AsyncioDatagram:
        return AsyncioDatagram(site, port, address, key, side)

    def make_driver(handler: Handler) -> AnyDriver:
        if isinstance(handler, CallbackHandler):
            return DatagramCallbackDriver(handler, side)
        return DatagramCoroutineDriver(handler, side)

    def add(descriptor: int, readable: Readable) -> None:
        side.loop.add_reader(descriptor, readable.on_readable)

    site.connector = DatagramForwarding(add, side.loop.remove_reader).connector
    yield AsyncioDatagramCarrier(site, Arrivals(site, new_connection, make_driver))


class AsyncioDatagramCarrier(DatagramCarrier):
    """Reads the sockets of one datagram listener on the running asyncio or uvloop loop."""

    async def read(self, port: DatagramPort, listening: socket.socket) -> OSError:
        loop = asyncio.get_running_loop()
        failed: asyncio.Future[OSError] = loop.create_future()

        def read() -> None:
            try:
                port.on_readable()
            except OSError as error:
                loop.remove_reader(listening)
                if not failed.done():
                    failed.set_result(error)

        loop.add_reader(listening, read)
        try:
            return await failed
        finally:
            loop.remove_reader(listening)
