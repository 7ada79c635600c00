"""Datagram listeners on asyncio and uvloop: the event loop tells that a socket is readable, and Python reads it.

asyncio's own datagram transport reads one datagram a wake-up, and uvloop's has no bound. A handler runs in a native
task. While that waits for a datagram, it is resumed as soon as one is taken, before the next one is (see `resume`). So
nothing happens between the two, and a receive that is cancelled loses nothing.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from types import coroutine
from typing import TYPE_CHECKING, Any
from weakref import ref

from esockd_core._connection.callback_driver import CallbackDriver
from esockd_core._connection.datagram import DatagramBase
from esockd_core._connection.driver import NOBODY
from esockd_core._connection.handler import CallbackHandler
from esockd_core._connection.receiving import YIELD_EVERY
from esockd_core._forwarding.datagram_relay import DatagramForwarding
from esockd_core._loops.asyncio.cancellation import current_task, scoped_tasks
from esockd_core._loops.asyncio.handled import HandledConnection, HandlerDriver
from esockd_core._loops.asyncio.resuming import NO_STEP, leave_to_loop, resume
from esockd_core._loops.asyncio.side import AsyncioSide
from esockd_core._loops.datagram import Arrivals, DatagramCarrier

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Generator, Hashable

    from esockd_core._connection.driver import AnyDriver
    from esockd_core._connection.handler import Handler
    from esockd_core._connection.peers import SharedSocket
    from esockd_core._connection.port import DatagramPort
    from esockd_core._connection.site import Site
    from esockd_core._forwarding.datagram_relay import Readable


class AsyncioDatagram(  # pyright: ignore[reportIncompatibleMethodOverride, reportIncompatibleVariableOverride]
    DatagramBase, HandledConnection
):
    """A datagram connection on asyncio or uvloop."""

    __slots__ = ("_context", "_side", "_step", "_task", "_task_ref", "_waiter")

    def __init__(self, site: Site, port: SharedSocket, address: Any, key: Hashable, side: AsyncioSide) -> None:
        DatagramBase.__init__(self, site, NOBODY, port, address, key)  # half the cost of super(), for each peer
        self._side = side
        self._task: asyncio.Task[object] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._task_ref: ref[asyncio.Task[object]] | None = None
        self._step, self._context = NO_STEP  # of the handler's task, once it was resumed

    def note_step(self, step: Any, context: Any) -> None:
        """Keep what `resume` returned for the next datagram, if it is of the handler's own task."""
        if step is not None and step.__self__ is self._task:
            self._step, self._context = step, context

    def handler_done(self, task: asyncio.Task[object]) -> None:
        # They refer to the task, whose error and variables may refer to the connection.
        self._step, self._context = NO_STEP
        HandledConnection.handler_done(self, task)

    @coroutine
    def _receive_next(self, end: type[Exception] = StopAsyncIteration) -> Generator[Any, None, bytes]:
        # What the base does, with its calls of the methods below written out, for each datagram.
        at_once: bytes | None = self._datagram
        if at_once is None and not (self._closing or self._receiver or self.draining) and self.driver.receives:
            self._iterates = end is StopAsyncIteration
            waiter = self._waiter
            if waiter is None or waiter.done():
                self._waiter = waiter = self._side.loop.create_future()
            waiter._asyncio_future_blocking = True
            self._receiver = waiter
            try:
                yield waiter
            finally:
                self._receiver = None
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
        unyielded = self._unyielded
        if (
            type(item) is bytes
            and unyielded < YIELD_EVERY
            and not self._closing
            and self.layer is None
            # As `is_in_cancel_scope` does, but a reference to the handler's task is at hand.
            and (self._task_ref if (task := current_task(self._side.loop)) is self._task else ref(task))
            not in scoped_tasks
        ):
            self._unyielded = unyielded + 1
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

    @coroutine
    def _wait_for_input(self) -> Generator[Any, None, None]:
        waiter = self._waiter
        if waiter is None or waiter.done():
            self._waiter = waiter = self._side.loop.create_future()
        waiter._asyncio_future_blocking = True
        self._receiver = waiter
        try:
            yield waiter
        finally:
            self._receiver = None


class DatagramCoroutineDriver(HandlerDriver[AsyncioDatagram]):
    """Gives datagrams to the handler that waits for one, and keeps them until it does."""

    __slots__ = ()

    def start(self, connection: AsyncioDatagram) -> None:
        super().start(connection)
        if connection._task is not None:
            connection._task_ref = ref(connection._task)

    def data_received(self, connection: AsyncioDatagram, data: bytes) -> None:
        if connection._datagram is not None:
            connection.keep(data)
            return
        connection._datagram = data
        waiter = connection._receiver
        if waiter is None:
            return
        # No local variable has the step: frames of an error of the task may lead here, and the step leads to the task.
        if not waiter.remove_done_callback(connection._step):  # it is the first time, or not the handler's own task
            connection.note_step(*resume(waiter, self._side, keeps=True))
            return
        # What `resume` does, without looking for the step.
        try:
            connection._context.run(connection._step, self._side.woken)
        except RuntimeError:
            leave_to_loop(waiter, connection._step, connection._context)
        except (KeyboardInterrupt, SystemExit) as error:
            self._side.end_program(error)


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

    def new_connection(port: SharedSocket, address: Any, key: Hashable) -> AsyncioDatagram:
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
