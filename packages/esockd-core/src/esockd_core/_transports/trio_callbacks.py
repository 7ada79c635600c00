"""Callback connections on trio: one task and one epoll(7) instance for all of a listener."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Final

from anyio import BrokenResourceError, ClosedResourceError
from trio.lowlevel import wait_readable

from esockd_core._connection import RESET
from esockd_core._transports.callbacks import CalledBack
from esockd_core._transports.trio import TrioConnection

if TYPE_CHECKING:
    import socket

    import trio

    from esockd_core._handler import CallbackHandler
    from esockd_core._service import Service
    from esockd_core._tls_options import TlsOptions

READY_BATCH: Final = 256  # sockets one look at the private epoll may report


class CallbackPoller:
    """One task that waits for all callback connections of a listener, by a private epoll(7) instance.

    trio's own wait costs a task for each connection; an epoll descriptor is readable when any of its sockets is.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._epoll: select.epoll | None = None
        self._connections: dict[int, TrioCallbackConnection] = {}

    def add(self, descriptor: int, connection: TrioCallbackConnection) -> None:
        """Call the connection's `on_readable` whenever its socket is readable; once is enough."""
        if descriptor in self._connections:
            return
        if self._epoll is None:
            self._epoll = select.epoll()
            self._nursery.start_soon(self._run, self._epoll)
        self._connections[descriptor] = connection
        self._epoll.register(descriptor, select.EPOLLIN)

    def remove(self, descriptor: int) -> None:
        """Stop looking at a socket, before it is closed; nothing happens if it is not looked at."""
        if self._epoll is not None and self._connections.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    async def _run(self, epoll: select.epoll) -> None:
        try:
            while True:
                await wait_readable(epoll.fileno())
                for descriptor, _ in epoll.poll(0, READY_BATCH):
                    connection = self._connections.get(descriptor)
                    if connection is not None:  # otherwise closed by the callback of one before it
                        connection.on_readable()
        finally:
            self._epoll = None
            epoll.close()


class TrioCallbackConnection(CalledBack, TrioConnection):
    """A connection served by callbacks."""

    __slots__ = ("_callbacks", "_poller", "_reading", "_writing_paused")

    def __init__(
        self,
        service: Service,
        nursery: trio.Nursery,
        accepted: socket.socket,
        poller: CallbackPoller,
        callbacks: CallbackHandler,
    ) -> None:
        super().__init__(service, nursery, accepted)
        self._callbacks = callbacks
        self._poller = poller
        self._reading = False
        self._writing_paused = False

    def _callback_failed(self, error: BaseException) -> None:
        if not isinstance(error, Exception):  # meant to end the program
            raise error
        super()._callback_failed(error)

    def _start(self) -> None:
        try:
            self.resume_reading()
        except OSError as error:  # no descriptor or memory for the poller
            self._error = error
        self._call(self._callbacks.connection_made)
        if self._error is not None:
            self.abort_socket()

    def on_readable(self) -> None:
        """The poller saw input."""
        try:
            data = self._socket.recv(self._service.read_bytes)
        except BlockingIOError:
            return
        except OSError as error:
            self._break(error)
            return
        if data:
            self.bytes_in += len(data)
            try:
                self._callbacks.data_received(self, data)
            except BaseException as error:  # noqa: BLE001
                self._callback_failed(error)
        else:
            self._eof = True
            self.pause_reading()
            self._call(self._callbacks.eof_received)

    def pause_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._poller.remove(self._socket.fileno())

    def resume_reading(self) -> None:
        if not self._reading and not self._closing and not self._eof:
            self._reading = True
            if self._kept is None:  # a handshake reads for itself
                self._poll()

    def _poll(self) -> None:
        self._poller.add(self._socket.fileno(), self)
        if self._has_buffered():
            self._nursery.start_soon(self._deliver_buffered)  # no poll of the socket will tell of it

    def _has_buffered(self) -> bool:
        return bool(getattr(self._socket, "buffered", b""))

    async def _deliver_buffered(self) -> None:
        if self._reading and self._has_buffered():
            self.on_readable()

    def start_tls_nowait(self, options: TlsOptions, received: bytes = b"") -> None:
        self._begin_tls()
        self.pause_reading()
        self._reading = True  # once it is done
        self._nursery.start_soon(self._start_tls, options, received)

    async def _start_tls(self, options: TlsOptions, received: bytes) -> None:
        try:
            await self._shake(options, received)
            if not self._closing:
                self._call(self._callbacks.tls_started)
            if self._reading:
                self._poll()
        except (BrokenResourceError, ClosedResourceError):
            pass  # `connection_lost` tells
        except OSError as error:  # no memory for the poller
            self._break(error)
        finally:
            self._wake_if_room()

    def _write(self, data: bytes) -> None:
        super()._write(data)
        if self._is_write_paused() and not self._writing_paused:
            self._writing_paused = True
            self._call(self._callbacks.pause_writing)

    def _wake_senders(self) -> None:
        super()._wake_senders()
        if self._writing_paused and not self._closing:
            self._writing_paused = False
            self._call(self._callbacks.resume_writing)

    def _begin_close(self) -> None:
        self.pause_reading()
        super()._begin_close()

    def abort_socket(self) -> None:
        if not self._lost:
            self.pause_reading()
            if self._error is not None and not self._closing:
                self._reason = self._reason or RESET
            super().abort_socket()

    def _ended(self) -> None:
        if self.id:
            self._nursery.start_soon(self._tell_end)

    async def _tell_end(self) -> None:
        # Not at once: whoever closed it may be in the midst of a callback, of this or of another connection.
        self._call(lambda connection: self._callbacks.connection_lost(connection, self._error))
        super()._ended()
